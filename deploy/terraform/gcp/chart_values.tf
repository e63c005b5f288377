# What the chart sie-cluster must know of this cluster, from the pools, the bucket and the registry. It stands for the
# chart's values-gke.yaml, which is for clusters that others made.

locals {
  chart_pools = { nvidia-l4 = "l4", nvidia-tesla-a100 = "a100-40gb", nvidia-a100-80gb = "a100-80gb" }

  # By kind of GPU: the pools that have it, of machines that the module knows.
  served = {
    for gpu_type in distinct([for pool in values(local.pools) : pool.gpu_type]) : gpu_type => [
      for pool in values(local.pools) : merge(pool, local.machines[pool.machine_type])
      if pool.gpu_type == gpu_type && contains(keys(local.machines), pool.machine_type)
    ]
  }

  values_pools = {
    for gpu_type, pools in local.served : lookup(local.chart_pools, gpu_type, trimprefix(gpu_type, "nvidia-")) => {
      enabled      = true
      minReplicas  = sum([for pool in pools : pool.min_node_count * pool.gpu_count])
      maxReplicas  = sum([for pool in pools : pool.max_node_count * pool.gpu_count])
      gpuType      = lookup(local.chart_pools, gpu_type, trimprefix(gpu_type, "nvidia-"))
      spot         = alltrue(pools[*].spot)
      gpu          = { count = 1 }
      nodeSelector = { "cloud.google.com/gke-accelerator" = gpu_type }
      tolerations = distinct(concat(
        # GKE itself taints machines with GPUs so, whatever the pool's own taints are.
        [{ key = "nvidia.com/gpu", operator = "Equal", value = "present", effect = "NoSchedule" }],
        flatten([for pool in pools : [
          for taint in pool.taints : { key = taint.key, operator = "Equal", value = taint.value, effect = local.taint_effects[taint.effect] }
        ]]),
      ))
      # A worker has one GPU, so that share of its machine; of the smallest, where there are several. The system and
      # the DaemonSets have a core, 3 GiB, and what a machine of that size keeps for itself.
      resources = {
        requests = {
          cpu    = tostring(min([for pool in pools : floor((pool.cores - 1) / pool.gpu_count)]...))
          memory = "${min([for pool in pools : floor((pool.memory - 3) * 8 / 10 / pool.gpu_count)]...)}Gi"
        }
        limits = {
          cpu    = tostring(min([for pool in pools : ceil(pool.cores / pool.gpu_count)]...))
          memory = "${min([for pool in pools : floor((pool.memory - 3) * 9 / 10 / pool.gpu_count)]...)}Gi"
        }
      }
    } if length(pools) > 0
  }

  # Three quarters of the disk that a worker has of the smallest machine; the images are beside it.
  cache_gib = min(concat([300], [for pool in values(local.pools) : floor(pool.disk_gib * 3 / 4 / pool.gpu_count)])...)

  image_registry = var.sie_image_registry != null ? var.sie_image_registry : lookup(local.registry_urls, "images", "")

  # Sign-in and tokens exclude each other in the chart: routers would take the proxy's token for a wrong one.
  router_auth_mode = var.sie_auth_enabled ? "none" : var.sie_router_auth_mode

  chart_values = {
    keda                  = { install = true, prometheus = { operator = { enabled = true, serviceMonitor = { enabled = true } } } }
    kube-prometheus-stack = { install = true, coreDns = { enabled = false }, kubeDns = { enabled = true } } # GKE has kube-dns
    dcgm-exporter = {                                                                                       # GKE keeps the driver in a folder of the host and names GPUs by device
      install           = true
      nodeSelector      = { "cloud.google.com/gke-gpu" = "true" }
      tolerations       = [{ key = "nvidia.com/gpu", operator = "Exists", effect = "NoSchedule" }]
      securityContext   = { privileged = true }
      extraHostVolumes  = [{ name = "driver", hostPath = "/home/kubernetes/bin/nvidia" }]
      extraVolumeMounts = [{ name = "driver", mountPath = "/usr/local/nvidia", readOnly = true }]
      extraEnv = [
        { name = "LD_LIBRARY_PATH", value = "/usr/local/nvidia/lib64" },
        { name = "DCGM_EXPORTER_KUBERNETES_GPU_ID_TYPE", value = "device-name" },
      ]
    }
    serviceMonitor = { enabled = true }
    alertRules     = { enabled = true }
    dashboards     = { enabled = true }
    imageRegistry  = local.image_registry
    serviceAccount = {
      create      = true
      name        = var.sie_service_account_name
      annotations = var.enable_workload_identity ? { "iam.gke.io/gcp-service-account" = local.workload_email } : {}
    }
    workers = {
      common = {
        cacheVolumeSize  = "${local.cache_gib}Gi"
        spotNodeSelector = { "cloud.google.com/gke-spot" = "true" }
        spotTolerations  = [{ key = "cloud.google.com/gke-spot", operator = "Equal", value = "true", effect = "NoSchedule" }]
        clusterCache = {
          enabled = local.has_model_cache
          url     = local.has_model_cache ? local.model_cache_url : ""
          write   = local.has_model_cache && var.model_cache_write
        }
      }
      # The chart enables l4 by itself; without such machines it would wait for ever.
      pools = merge({ l4 = { enabled = false } }, local.values_pools)
    }
    ingress = {
      enabled = var.sie_ingress_enabled
      host    = var.sie_ingress_host
      tls     = { enabled = var.sie_ingress_tls_enabled, secretName = var.sie_ingress_tls_secret_name }
    }
    auth = {
      enabled = var.sie_auth_enabled
      oauth2Proxy = {
        oidcIssuerUrl = var.sie_auth_oidc_issuer_url
        secret        = { name = var.sie_auth_secret_name }
        image         = { registry = lookup(local.registry_urls, "quay", "quay.io") }
      }
    }
    router = {
      # Prometheus reads /metrics without a token; the ingress does not show it.
      auth = {
        mode              = local.router_auth_mode
        tokenSecretName   = local.router_auth_mode == "static" ? var.sie_router_auth_secret_name : ""
        exemptOperational = "metrics"
      }
    }
  }
}
