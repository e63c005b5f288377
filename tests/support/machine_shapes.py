"""What the clouds' GPU machines have, and what Kubernetes leaves of it for pods."""

from dataclasses import dataclass
from typing import Final, Literal

Cloud = Literal["gcp", "aws"]
SYSTEM_CORES: Final = 0.5  # DaemonSets that every GPU machine has: logs, network, disks, NVIDIA's plugin and metrics
SYSTEM_GIB: Final = 1.0
IMAGES_GIB: Final = 30  # the worker's image is 10 GB, unpacked; the system has the rest
EVICTION: Final = 0.1  # the kubelet ends pods when less of the disk is free
EKS_PODS: Final = 58  # of g6.xlarge; each costs the kubelet 11 MiB. Larger machines have memory to spare


@dataclass(frozen=True, slots=True)
class Shape:
    """One machine type."""

    cloud: Cloud
    gpu: str
    gpus: int
    cores: int
    memory_gib: int

    def pod_cores(self) -> float:
        """Cores for our pods. GKE and EKS keep the same shares: 6 % of the first core, then 1 %, 0.5 % and 0.25 %."""
        kept = sum(share for core, share in zip(range(self.cores), (0.06, 0.01, 0.005, 0.005), strict=False))
        return self.cores - kept - max(0, self.cores - 4) * 0.0025 - SYSTEM_CORES

    def pod_gib(self) -> float:
        """Memory for our pods; the firmware and the kernel have 3 % of the nominal size before anybody else."""
        return self.memory_gib * 0.97 - self._kept_gib() - 0.1 - SYSTEM_GIB

    def _kept_gib(self) -> float:
        """What the kubelet keeps: GKE a share that falls with the size, EKS an amount for each pod."""
        if self.cloud == "aws":
            return (255 + 11 * EKS_PODS) / 1024
        kept, left = 0.0, float(self.memory_gib)
        for size, share in ((4, 0.25), (4, 0.2), (8, 0.1), (112, 0.06)):
            kept += min(left, size) * share
            left = max(0.0, left - size)
        return kept + left * 0.02


SHAPES: Final = {
    "g2-standard-4": Shape("gcp", "nvidia-l4", 1, 4, 16),
    "g2-standard-8": Shape("gcp", "nvidia-l4", 1, 8, 32),
    "g2-standard-12": Shape("gcp", "nvidia-l4", 1, 12, 48),
    "g2-standard-16": Shape("gcp", "nvidia-l4", 1, 16, 64),
    "g2-standard-24": Shape("gcp", "nvidia-l4", 2, 24, 96),
    "g2-standard-32": Shape("gcp", "nvidia-l4", 1, 32, 128),
    "g2-standard-48": Shape("gcp", "nvidia-l4", 4, 48, 192),
    "g2-standard-96": Shape("gcp", "nvidia-l4", 8, 96, 384),
    "a2-highgpu-1g": Shape("gcp", "nvidia-tesla-a100", 1, 12, 85),
    "a2-highgpu-2g": Shape("gcp", "nvidia-tesla-a100", 2, 24, 170),
    "a2-highgpu-4g": Shape("gcp", "nvidia-tesla-a100", 4, 48, 340),
    "a2-highgpu-8g": Shape("gcp", "nvidia-tesla-a100", 8, 96, 680),
    "a2-ultragpu-1g": Shape("gcp", "nvidia-a100-80gb", 1, 12, 170),
    "a2-ultragpu-2g": Shape("gcp", "nvidia-a100-80gb", 2, 24, 340),
    "a2-ultragpu-4g": Shape("gcp", "nvidia-a100-80gb", 4, 48, 680),
    "a2-ultragpu-8g": Shape("gcp", "nvidia-a100-80gb", 8, 96, 1360),
    "a3-highgpu-8g": Shape("gcp", "nvidia-h100-80gb", 8, 208, 1872),
    "g6.xlarge": Shape("aws", "nvidia-l4", 1, 4, 16),
    "g6.2xlarge": Shape("aws", "nvidia-l4", 1, 8, 32),
    "g6.4xlarge": Shape("aws", "nvidia-l4", 1, 16, 64),
    "g6.8xlarge": Shape("aws", "nvidia-l4", 1, 32, 128),
    "g6.12xlarge": Shape("aws", "nvidia-l4", 4, 48, 192),
    "g6.16xlarge": Shape("aws", "nvidia-l4", 1, 64, 256),
    "g6.24xlarge": Shape("aws", "nvidia-l4", 4, 96, 384),
    "g6.48xlarge": Shape("aws", "nvidia-l4", 8, 192, 768),
    "p4d.24xlarge": Shape("aws", "nvidia-tesla-a100", 8, 96, 1152),
    "p4de.24xlarge": Shape("aws", "nvidia-a100-80gb", 8, 96, 1152),
    "p5.48xlarge": Shape("aws", "nvidia-h100-80gb", 8, 192, 2048),
}


def quantity(text: str) -> float:
    """A Kubernetes quantity of cores, or of memory and disk in GiB."""
    for suffix, factor in (("Gi", 1.0), ("Mi", 1 / 1024), ("m", 0.001)):
        if text.endswith(suffix):
            return float(text.removesuffix(suffix)) * factor
    return float(text)
