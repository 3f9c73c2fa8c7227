"""Whole numbers as bytes, and bounds that hold for every value: what codec families of any kind build on."""
