"""Frames in and out of files: videos, pictures, folders."""
