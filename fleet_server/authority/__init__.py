"""The fleet's certificate authority: its keys, what it signs, how it is renewed and exchanged."""
