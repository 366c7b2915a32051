"""A small manifest that contradicts nothing, for tests that need any."""

from fleet_protocol import manifest as mf


def small_manifest(name: str = "pressure_leak") -> mf.Manifest:
    """A classifier of four pressure samples, called ``name``."""
    tensor = mf.Tensor(shape=(1, 4), dtype=mf.ElementType.FLOAT32)
    return mf.Manifest(
        format=1,
        name=name,
        version="1",
        release=1,
        licence="Apache-2.0",
        description="",
        files=(mf.File("m.tflite", "0" * 64, 1), mf.File("golden.npz", "0" * 64, 1)),
        variants=(mf.ModelFile(file="m.tflite", runtimes=(mf.Runtime.LITERT,), input=tensor, output=tensor),),
        step_s=900.0,
        features=(mf.Feature(metric="pressure", kind=mf.FeatureKind.STANDARD, length=4),),
        output=mf.Output(kind=mf.OutputKind.CLASSIFICATION, labels=("normal", "leak"), alarm_label="leak"),
        golden=mf.Golden(file="golden.npz", tolerance=0.1),
    )
