"""Run time: a bundle and an image in, labels out. Nothing here imports torch."""
