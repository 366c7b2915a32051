"""Where answers come from: the fleet server over HTTP, or one agent over its own socket."""
