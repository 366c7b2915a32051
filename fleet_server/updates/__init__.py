"""What may run where, who shall have it, and the moves of the fleet that bring it there."""
