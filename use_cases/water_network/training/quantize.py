"""From a float PyTorch module to int8 files: LiteRT (static w8a8, int8 in and out) and OpenVINO IR."""

from pathlib import Path

import litert_torch
import nncf
import numpy as np
import openvino
import torch
from ai_edge_quantizer import quantizer, recipe, recipe_manager
from ai_edge_quantizer.calibrator import CalibrationMode, Calibrator
from ai_edge_quantizer.utils.qsv_utils import min_max_update
from nncf.quantization.range_estimator import RangeEstimatorParametersSet
from numpy.typing import NDArray
from torch import nn

Floats = NDArray[np.float32]


def to_litert(module: nn.Module, calibration: Floats, float_file: Path, int8_file: Path) -> None:
    """Write ``module`` as float and as int8 ``.tflite``, calibrated on rows of ``calibration``."""
    litert_torch.convert(module, (torch.zeros(1, calibration.shape[1]),)).export(str(float_file))
    plan = recipe_manager.RecipeManager()
    plan.load_quantization_recipe(recipe.static_wi8_ai8())
    # The quantizer's own calibration averages the extremes of one row after another, which cuts off large
    # leaks; the extremes of all rows are wanted.
    observer = Calibrator(
        str(float_file), qsv_update_func=min_max_update, mode=CalibrationMode.CALIBRATION_PRESERVE_ALL_TENSORS
    )
    rows = [{"args_0": row[None]} for row in calibration]
    observer.calibrate({"serving_default": rows}, plan)
    work = quantizer.Quantizer(str(float_file), plan.get_quantization_recipe())
    work.quantize(observer.get_model_qsvs()).export_model(str(int8_file), overwrite=True)


def to_openvino(module: nn.Module, calibration: Floats, xml_file: Path) -> None:
    """Write ``module`` as int8 OpenVINO IR (``.xml`` and ``.bin``), float in and out."""
    width = calibration.shape[1]
    model = openvino.convert_model(module, example_input=torch.zeros(1, width), input=[1, width])
    data = nncf.Dataset([row[None] for row in calibration])
    # Weights of 7 bits: with 8, sums of u8 x i8 products overflow on some processors, and single answers then
    # go far wrong (seen on one with VNNI, too). Ranges as above: the extremes of all rows.
    fine = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.ENABLE,
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
    )
    quantized = nncf.quantize(model, data, subset_size=len(calibration), advanced_parameters=fine)
    openvino.save_model(quantized, xml_file)
