"""The screens, one file each; what they have in common is in base."""
