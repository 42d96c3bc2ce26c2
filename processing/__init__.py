"""From files to tensors, and back from tensors to answers."""

from transformers import AutoProcessor

from modeling_videoqa.configuration_videoqa import VideoQAConfig

from .collator import EpochCallback, VideoQACollator
from .dataset import VideoQADataset
from .feature_files import open_features
from .features import FeatureStore, extract_features
from .loaders import VideoQAData, load_videoqa
from .objects import ObjectStore, extract_objects
from .processing_videoqa import VideoQAAnswer, VideoQAProcessor
from .subtitles_videoqa import Sentence, read_subtitles

__all__ = [
    "EpochCallback", "FeatureStore", "ObjectStore", "Sentence", "VideoQAAnswer", "VideoQACollator", "VideoQAData",
    "VideoQADataset", "VideoQAProcessor", "extract_features", "extract_objects", "load_videoqa", "open_features",
    "read_subtitles",
]  # fmt: skip

AutoProcessor.register(VideoQAConfig, VideoQAProcessor)
