"""From files to tensors, and back from tensors to answers."""

from transformers import AutoProcessor

from modeling_videoqa.configuration_videoqa import VideoQAConfig

from .collator import EpochCallback
from .collator import VideoQACollator
from .dataset import VideoQADataset
from .features import FeatureStore
from .features import extract_features
from .loaders import VideoQAData
from .loaders import load_videoqa
from .processing_videoqa import VideoQAAnswer
from .processing_videoqa import VideoQAProcessor
from .subtitles_videoqa import Sentence
from .subtitles_videoqa import read_subtitles

__all__ = [
    "EpochCallback", "FeatureStore", "Sentence", "VideoQAAnswer", "VideoQACollator", "VideoQAData", "VideoQADataset",
    "VideoQAProcessor", "extract_features", "load_videoqa", "read_subtitles",
]  # fmt: skip

AutoProcessor.register(VideoQAConfig, VideoQAProcessor)
