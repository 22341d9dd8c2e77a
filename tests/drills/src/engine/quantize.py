"""Writes a GGUF file's tensors anew as Q8_0: quantize.py FROM TO."""

import sys
from pathlib import Path

from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
from gguf.quants import dequantize, quantize

# The writer makes these itself.
OWN = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture", "general.file_type", "general.alignment")


def main(source, target):
    reader = GGUFReader(source)
    part = Path(f"{target}.part")
    writer = GGUFWriter(part, reader.get_field("general.architecture").contents())
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    for name, field in reader.fields.items():
        if name not in OWN:
            kind = field.types[0]
            writer.add_key_value(name, field.contents(), kind, field.types[-1] if kind == GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        if tensor.tensor_type == GGMLQuantizationType.F32 and len(tensor.shape) == 1:
            writer.add_tensor(tensor.name, tensor.data)
        else:
            whole = dequantize(tensor.data, tensor.tensor_type)
            writer.add_tensor(tensor.name, quantize(whole, GGMLQuantizationType.Q8_0), raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.rename(target)


main(*sys.argv[1:])
