"""Answers to what devices could not decide: admission, the central model, and who runs it."""
