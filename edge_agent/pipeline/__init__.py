"""From samples to answers: windows, features, model, rules."""
