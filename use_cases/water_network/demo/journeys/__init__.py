"""The journeys of the demonstration, one a file: each does something to the city and observes what comes of it."""
