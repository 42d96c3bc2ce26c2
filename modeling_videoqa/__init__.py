"""A small, exact model that answers multiple-choice questions about subtitled video and shows where the answer is."""

from transformers import AutoConfig, AutoModel, AutoModelForMultipleChoice
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_videoqa import VideoQAConfig
from .modeling_videoqa import VideoQAForMultipleChoice, VideoQAModel, VideoQAOutput, VideoQAPreTrainedModel
from .pipeline_videoqa import TASK, VideoQAPipeline

__version__ = "0.1.0"
__all__ = [
    "VideoQAConfig", "VideoQAForMultipleChoice", "VideoQAModel", "VideoQAOutput", "VideoQAPipeline",
    "VideoQAPreTrainedModel",
]  # fmt: skip

AutoConfig.register(VideoQAConfig.model_type, VideoQAConfig)
AutoModel.register(VideoQAConfig, VideoQAModel)
AutoModelForMultipleChoice.register(VideoQAConfig, VideoQAForMultipleChoice)
PIPELINE_REGISTRY.register_pipeline(TASK, VideoQAPipeline, AutoModelForMultipleChoice)
