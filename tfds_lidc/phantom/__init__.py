"""SIMULATED attenuation for real contours and ratings. Start with `patch`."""
