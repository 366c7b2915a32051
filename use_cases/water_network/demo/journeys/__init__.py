"""The journeys of the demonstration, one a file: each does something and observes what comes of it."""
