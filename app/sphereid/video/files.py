"""What the results of a video are called, in their folder."""

from typing import Final

VIDEO: Final = "annotated.mp4"
TRACKS: Final = "tracks.json"
TABLE: Final = "tracks.csv"
TIMELINE: Final = "timeline.png"
CAPTIONS: Final = "captions.vtt"
FRAMES: Final = "frames.jsonl"
CROPS: Final = "crops"
