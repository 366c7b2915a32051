"""The commands of ``fleet``, one file a journey, and what they share."""
