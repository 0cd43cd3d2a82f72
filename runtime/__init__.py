"""Run time: a bundle and a picture in, labels out. Nothing here imports torch."""
