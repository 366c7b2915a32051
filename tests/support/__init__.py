"""What tests share: real servers on free ports, a test CA, and small documents."""
