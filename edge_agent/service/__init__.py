"""What the agent tells about itself: health codes, status and report."""
