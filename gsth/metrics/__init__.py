"""Measures of pictures, landmarks, lips, identity and sync. Arrays in, numbers out; only weights are read from files.

Pictures are [h w 3], uint8 or float 0 to 1. Landmarks are the 478 MediaPipe points, px, [l 2] or [t l 2], NaN where no
face was found. IOD is the inter-ocular distance: between the outer eye corners (points 33 and 263). A measure whose
package or weights are absent raises (``MissingExtraError``, ``WeightsAbsentError``); none makes up a number.
"""

from __future__ import annotations

from gsth.metrics._distribution import Inception, frechet_distance
from gsth.metrics._identity import ArcFace, Embedder, cosine, dlib_embedder
from gsth.metrics._image import Box, Compared, Picture, Similarity, cut, flip_map, psnr, ssim, unit
from gsth.metrics._motion import flicker, mean, word_accuracy
from gsth.metrics._natural import MIN_SIDE as NIQE_MIN_SIDE
from gsth.metrics._natural import natural_statistics, niqe
from gsth.metrics._perceptual import Perceptual, lpips, st_lpips
from gsth.metrics._points import (
    CLOSED,
    FACE,
    INNER_LIPS,
    LIPS,
    LIPS_20,
    MAX_LAG,
    LagFit,
    Points,
    Recall,
    best_lag,
    bilabial_closure,
    blink_recall,
    closure_recall,
    eye_opening,
    face_box,
    inter_ocular,
    jitter_pct,
    landmark_distance_pct,
    lmd_px,
    mouth_box,
    mouth_opening,
    runs,
    stabilised,
)
from gsth.metrics._sync import SYNC_FPS, SYNC_RATE, Sync, SyncNet, mfcc, sync_crops, sync_of
from gsth.metrics._weights import WeightsAbsentError

__all__ = [
    "CLOSED",
    "FACE",
    "INNER_LIPS",
    "LIPS",
    "LIPS_20",
    "MAX_LAG",
    "NIQE_MIN_SIDE",
    "SYNC_FPS",
    "SYNC_RATE",
    "ArcFace",
    "Box",
    "Compared",
    "Embedder",
    "Inception",
    "LagFit",
    "Perceptual",
    "Picture",
    "Points",
    "Recall",
    "Similarity",
    "Sync",
    "SyncNet",
    "WeightsAbsentError",
    "best_lag",
    "bilabial_closure",
    "blink_recall",
    "closure_recall",
    "cosine",
    "cut",
    "dlib_embedder",
    "eye_opening",
    "face_box",
    "flicker",
    "flip_map",
    "frechet_distance",
    "inter_ocular",
    "jitter_pct",
    "landmark_distance_pct",
    "lmd_px",
    "lpips",
    "mean",
    "mfcc",
    "mouth_box",
    "mouth_opening",
    "natural_statistics",
    "niqe",
    "psnr",
    "runs",
    "ssim",
    "st_lpips",
    "stabilised",
    "sync_crops",
    "sync_of",
    "unit",
    "word_accuracy",
]
