// A made-up runtime behind TensorFlow Lite's C interface: its model takes INPUTS (name, type, values each), and answers every
// value that it was given, as floats, in the order of its inputs.
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "tensorflow/lite/c/c_api.h"

struct TfLiteModel {};
struct TfLiteInterpreterOptions {};
struct TfLiteTensor {
  std::string name;
  TfLiteType type;
  size_t values;
  std::vector<char> data;
};
struct TfLiteInterpreter {
  std::vector<TfLiteTensor> inputs{INPUTS};
  TfLiteTensor output{"answer", kTfLiteFloat32, 0, {}};
};

static size_t width(TfLiteType type) { return type == kTfLiteInt64 ? 8 : 4; }

TfLiteModel* TfLiteModelCreateFromFile(const char* path) {
  std::FILE* file = std::fopen(path, "rb");
  if (!file) return nullptr;
  std::fclose(file);
  return new TfLiteModel;
}
void TfLiteModelDelete(TfLiteModel* model) { delete model; }
TfLiteInterpreterOptions* TfLiteInterpreterOptionsCreate() { return new TfLiteInterpreterOptions; }
void TfLiteInterpreterOptionsDelete(TfLiteInterpreterOptions* options) { delete options; }
void TfLiteInterpreterOptionsSetNumThreads(TfLiteInterpreterOptions*, int32_t) {}
TfLiteInterpreter* TfLiteInterpreterCreate(const TfLiteModel*, const TfLiteInterpreterOptions*) {
  return new TfLiteInterpreter;
}
void TfLiteInterpreterDelete(TfLiteInterpreter* interpreter) { delete interpreter; }
TfLiteStatus TfLiteInterpreterAllocateTensors(TfLiteInterpreter*) { return kTfLiteOk; }
int32_t TfLiteInterpreterGetInputTensorCount(const TfLiteInterpreter* it) { return int32_t(it->inputs.size()); }
TfLiteTensor* TfLiteInterpreterGetInputTensor(const TfLiteInterpreter* it, int32_t index) {
  return const_cast<TfLiteTensor*>(&it->inputs[index]);
}
TfLiteStatus TfLiteInterpreterInvoke(TfLiteInterpreter* it) {
  std::vector<float> all;
  for (const TfLiteTensor& tensor : it->inputs)
    for (size_t i = 0; i < tensor.data.size() / width(tensor.type); ++i) {
      const char* at = tensor.data.data() + i * width(tensor.type);
      float real;
      int64_t whole = 0;
      std::memcpy(&real, at, 4);
      std::memcpy(&whole, at, width(tensor.type));
      all.push_back(tensor.type == kTfLiteFloat32 ? real : float(whole));
    }
  it->output.data.resize(all.size() * 4);
  std::memcpy(it->output.data.data(), all.data(), all.size() * 4);
  return kTfLiteOk;
}
int32_t TfLiteInterpreterGetOutputTensorCount(const TfLiteInterpreter*) { return 1; }
const TfLiteTensor* TfLiteInterpreterGetOutputTensor(const TfLiteInterpreter* it, int32_t) { return &it->output; }
TfLiteType TfLiteTensorType(const TfLiteTensor* tensor) { return tensor->type; }
size_t TfLiteTensorByteSize(const TfLiteTensor* tensor) { return tensor->data.size(); }
const char* TfLiteTensorName(const TfLiteTensor* tensor) { return tensor->name.c_str(); }
TfLiteStatus TfLiteTensorCopyFromBuffer(TfLiteTensor* tensor, const void* data, size_t size) {
  if (size != tensor->values * width(tensor->type)) return kTfLiteError;
  tensor->data.assign(static_cast<const char*>(data), static_cast<const char*>(data) + size);
  return kTfLiteOk;
}
TfLiteStatus TfLiteTensorCopyToBuffer(const TfLiteTensor* tensor, void* data, size_t size) {
  std::memcpy(data, tensor->data.data(), size);
  return kTfLiteOk;
}
