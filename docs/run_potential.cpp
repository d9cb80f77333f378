// Compute energy and forces of a molecule with a compiled potential and libtorch: run_potential si-compiled.pt2
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/torch.h>

#include <iomanip>
#include <iostream>

int main(int, char** arguments) {
  torch::NoGradGuard no_gradients;
  torch::inductor::AOTIModelPackageLoader potential(arguments[1]);

  const auto real = torch::kFloat64;
  const auto whole = torch::kInt64;
  auto positions = torch::tensor({0.0, 0.0, 0.0, 1.5, 0.1, 0.2, 0.3, 1.4, 0.1}, real).reshape({3, 3});
  auto numbers = torch::tensor({1, 6, 8}, whole);
  auto batch = torch::zeros({3}, whole);
  auto cells = torch::zeros({1, 3, 3}, real);
  auto edges = torch::tensor({1, 2, 0, 2, 0, 1, 0, 0, 1, 1, 2, 2}, whole).reshape({2, 6});
  auto shifts = torch::zeros({6, 3}, real);

  auto outputs = potential.run({positions, numbers, batch, cells, edges, shifts});
  std::cout << std::setprecision(17) << outputs[0].item<double>();
  auto forces = outputs[1].flatten();
  for (int64_t k = 0; k < forces.numel(); ++k) std::cout << " " << forces[k].item<double>();
  std::cout << std::endl;
}
