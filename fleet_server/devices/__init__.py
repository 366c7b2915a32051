"""The devices that the fleet knows: who they are, what they say of themselves, and how they are."""
