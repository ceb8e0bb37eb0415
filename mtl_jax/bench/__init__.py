"""Speed, and PyTorch next to it; nothing but the modes that measure imports it."""
