"""How this device gets its identity: by an invitation, by its factory batch, or by files on a stick."""
