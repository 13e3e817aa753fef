"""Code to copy from, for applications without Python: a TFLite model in C++ and in Kotlin, with its own numbers."""

from __future__ import annotations

import json
import math
import re
from string import Template

from edgeprune.deploy.card import ModelCard, Port

CPP, KOTLIN = "use.cc", "Use.kt"

_CPP = Template("""\
// What $file answers, in C++ with LiteRT's C interface (the TensorFlow Lite C API). Build, and run with a file for each
// input: its values as the data have them, channels first, as raw little-endian float32.
//   g++ -std=c++17 $source -I HEADERS -L LIBRARIES -ltensorflowlite_c -o use && ./use $arguments
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "tensorflow/lite/c/c_api.h"

struct Input {
  const char* name;
  size_t size;   // values of one example
  size_t plane;  // of them in a row that share mean and std
  bool scaled;   // whether (x * scale - mean) / std is taken
  float scale;
  std::vector<float> mean, std;
};

static const std::vector<Input> inputs = {
$inputs
};
static const std::vector<const char*> labels = {$labels};

static void fail(const std::string& what) {
  std::fprintf(stderr, "error: %s\\n", what.c_str());
  std::exit(1);
}

static std::vector<float> read(const char* path, size_t size) {
  std::vector<float> x(size);
  std::FILE* file = std::fopen(path, "rb");
  if (!file || std::fread(x.data(), sizeof(float), size, file) != size) fail(std::string("cannot read ") + path);
  std::fclose(file);
  return x;
}

template <typename T>
static std::vector<T> as(const std::vector<float>& x) {
  return std::vector<T>(x.begin(), x.end());
}

static void give(TfLiteTensor* tensor, const Input& input, std::vector<float> x) {
  if (input.scaled)
    for (size_t i = 0; i < x.size(); ++i) {
      size_t channel = i / input.plane % input.mean.size();
      x[i] = (x[i] * input.scale - input.mean[channel]) / input.std[channel];
    }
  TfLiteStatus status = kTfLiteError;
  if (TfLiteTensorType(tensor) == kTfLiteFloat32)
    status = TfLiteTensorCopyFromBuffer(tensor, x.data(), x.size() * sizeof(float));
  else if (TfLiteTensorType(tensor) == kTfLiteInt32)
    status = TfLiteTensorCopyFromBuffer(tensor, as<int32_t>(x).data(), x.size() * sizeof(int32_t));
  else if (TfLiteTensorType(tensor) == kTfLiteInt64)
    status = TfLiteTensorCopyFromBuffer(tensor, as<int64_t>(x).data(), x.size() * sizeof(int64_t));
  if (status != kTfLiteOk) fail(std::string("input ") + input.name + " is not taken");
}

int main(int count, char** arguments) {
  if (count != int(inputs.size()) + 1) fail("expected a file for each input: $arguments");
  TfLiteModel* model = TfLiteModelCreateFromFile("$file");
  if (!model) fail("cannot open $file");
  TfLiteInterpreterOptions* options = TfLiteInterpreterOptionsCreate();
  TfLiteInterpreterOptionsSetNumThreads(options, $threads);
  TfLiteInterpreter* interpreter = TfLiteInterpreterCreate(model, options);
  if (!interpreter || TfLiteInterpreterAllocateTensors(interpreter) != kTfLiteOk) fail("cannot load $file");
  for (int i = 0; i < TfLiteInterpreterGetInputTensorCount(interpreter); ++i) {
    TfLiteTensor* tensor = TfLiteInterpreterGetInputTensor(interpreter, i);
    for (size_t k = 0; k < inputs.size(); ++k)
      if (inputs.size() == 1 || std::string(inputs[k].name) == TfLiteTensorName(tensor))
        give(tensor, inputs[k], read(arguments[k + 1], inputs[k].size));
  }
  if (TfLiteInterpreterInvoke(interpreter) != kTfLiteOk) fail("$file does not run");
  for (int i = 0; i < TfLiteInterpreterGetOutputTensorCount(interpreter); ++i) {
    const TfLiteTensor* tensor = TfLiteInterpreterGetOutputTensor(interpreter, i);
    std::vector<float> y(TfLiteTensorByteSize(tensor) / sizeof(float));
    TfLiteTensorCopyToBuffer(tensor, y.data(), y.size() * sizeof(float));
    for (size_t k = 0; k < y.size(); ++k)
      std::printf("%s%s%.6g\\n", k < labels.size() ? labels[k] : "", k < labels.size() ? "\\t" : "", y[k]);
  }
  TfLiteInterpreterDelete(interpreter);
  TfLiteInterpreterOptionsDelete(options);
  TfLiteModelDelete(model);
}
""")

_KOTLIN = Template("""\
// What $file answers, in Kotlin with LiteRT's Interpreter (com.google.ai.edge.litert:litert in build.gradle, the model
// among the assets). Inputs are values as the data have them, not scaled, channels first; each output is a float array.
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Interpreter

class Use(model: ByteBuffer) : AutoCloseable {
    private class Input(
        val name: String, val plane: Int, val scaled: Boolean, val scale: Float, val mean: FloatArray,
        val std: FloatArray
    )

    private val inputs = listOf(
$inputs
    )
    val labels = listOf<String>($labels)
    private val interpreter = Interpreter(model, Interpreter.Options().setNumThreads($threads))

    fun answer(given: Map<String, FloatArray>): List<FloatArray> {
        val fed = Array<Any>(interpreter.inputTensorCount) { place ->
            val tensor = interpreter.getInputTensor(place)
            val input = inputs.singleOrNull() ?: inputs.first { it.name == tensor.name() }
            feed(tensor.dataType(), input, given.getValue(input.name))
        }
        val found = (0 until interpreter.outputTensorCount).associateWith { place ->
            ByteBuffer.allocateDirect(interpreter.getOutputTensor(place).numBytes()).order(ByteOrder.nativeOrder())
        }
        interpreter.runForMultipleInputsOutputs(fed, found)
        return found.values.map { buffer ->
            buffer.rewind()
            FloatArray(buffer.remaining() / 4).also { buffer.asFloatBuffer().get(it) }
        }
    }

    override fun close() = interpreter.close()

    private fun feed(type: DataType, input: Input, x: FloatArray): ByteBuffer {
        val buffer = ByteBuffer.allocateDirect(x.size * type.byteSize()).order(ByteOrder.nativeOrder())
        x.forEachIndexed { i, value ->
            val channel = if (input.scaled) i / input.plane % input.mean.size else 0
            val y = if (input.scaled) (value * input.scale - input.mean[channel]) / input.std[channel] else value
            when (type) {
                DataType.INT32 -> buffer.putInt(y.toInt())
                DataType.INT64 -> buffer.putLong(y.toLong())
                else -> buffer.putFloat(y)
            }
        }
        buffer.rewind()
        return buffer
    }
}
""")


def snippets(card: ModelCard) -> dict[str, str]:
    """Sources by their file names; none for a model that is not of TFLite, or whose inputs have no fixed size."""
    if card.format != "tflite" or any(None in port.shape for port in card.inputs):
        return {}
    labels = ", ".join(_quoted(label) for label in card.labels)
    common = {
        "file": card.file,
        "threads": "1",
        # Names of inputs may hold anything.
        "arguments": " ".join(re.sub(r"\W+", "_", port.name) + ".bin" for port in card.inputs),
        "source": CPP,
        "labels": labels,
    }
    return {
        CPP: _CPP.substitute(common, inputs=",\n".join(f"    {_cpp(port)}" for port in card.inputs)),
        KOTLIN: _KOTLIN.substitute(
            common,
            inputs=",\n".join(f"        {_kotlin(port)}" for port in card.inputs),
            labels=labels.replace("$", "\\$"),
        ),
    }


def _scaling(port: Port) -> tuple[int, bool, float, list[float], list[float]]:
    """Values in a row that share a mean, whether there is any scaling, scale, means, deviations."""
    size, how = _size(port), port.preprocessing
    if how is None:
        return size, False, 1.0, [0.0], [1.0]
    return size // len(how.mean), True, how.scale, list(how.mean), list(how.std)


def _size(port: Port) -> int:
    return math.prod(side for side in port.shape if side is not None)


def _cpp(port: Port) -> str:
    plane, scaled, scale, mean, std = _scaling(port)
    means, deviations = ("{" + ", ".join(f"{_number(each)}f" for each in values) + "}" for values in (mean, std))
    parts = [_quoted(port.name), _size(port), plane, str(scaled).lower(), f"{_number(scale)}f", means, deviations]
    return "{" + ", ".join(map(str, parts)) + "}"


def _kotlin(port: Port) -> str:
    plane, scaled, scale, mean, std = _scaling(port)
    means, deviations = (f"floatArrayOf({', '.join(f'{_number(each)}f' for each in values)})" for values in (mean, std))
    name = _quoted(port.name).replace("$", "\\$")
    return f"Input({name}, {plane}, {str(scaled).lower()}, {_number(scale)}f, {means}, {deviations})"


def _number(value: float) -> str:
    """As C++ and Kotlin read it, with a point or an exponent."""
    return repr(float(value))


def _quoted(text: str) -> str:
    """A string literal: JSON's escapes are those of both languages, and the sources are UTF-8."""
    return json.dumps(text, ensure_ascii=False)
