"""Changes that take somebody else's word: proposed, approved, held against the world again, made once."""
