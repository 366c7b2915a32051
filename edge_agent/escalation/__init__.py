"""What the agent does with an answer that it is not sure of: it asks the center."""
