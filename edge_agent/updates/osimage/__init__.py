"""Images of the operating system, handed to the board's own updater: RAUC or SWUpdate.

The agent never looks into an image. It has checked that the image is meant for this device; the tool
checks the image's own signature, writes it into the copy of the system that does not run, and switches the
bootloader. After the restart the agent says whether the new system stays.
"""
