"""What people use to see and to change the fleet. It speaks to the server over HTTP alone."""
