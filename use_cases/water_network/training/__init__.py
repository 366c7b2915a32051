"""How the two models are made; needs the tools of ``requirements.txt`` beside it."""
