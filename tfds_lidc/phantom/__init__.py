"""SIMULATED attenuation for real outlines and ratings. Door: `patch`."""
