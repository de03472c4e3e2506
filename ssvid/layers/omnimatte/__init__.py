"""Omnimatte (Lu et al., CVPR 2021): each object of a video as a layer with alpha that holds its shadow and reflection too, and a clean background."""
