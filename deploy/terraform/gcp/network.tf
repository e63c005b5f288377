locals {
  ranges = {
    subnet_cidr            = var.subnet_cidr
    pods_cidr              = var.pods_cidr
    services_cidr          = var.services_cidr
    master_ipv4_cidr_block = var.master_ipv4_cidr_block
  }
  # Two networks overlap if the wider one's mask makes them the same.
  overlaps = [
    for pair in setproduct(keys(local.ranges), keys(local.ranges)) : "${pair[0]} ${local.ranges[pair[0]]} and ${pair[1]} ${local.ranges[pair[1]]}"
    if index(keys(local.ranges), pair[0]) < index(keys(local.ranges), pair[1]) && try(
      length(distinct([
        for name in pair : cidrhost("${split("/", local.ranges[name])[0]}/${min([for each in pair : tonumber(split("/", local.ranges[each])[1])]...)}", 0)
      ])) == 1,
      false,
    )
  ]

  network    = var.create_network ? google_compute_network.vpc[0].id : var.network
  subnetwork = var.create_network ? google_compute_subnetwork.machines[0].id : var.subnetwork
  # Of a shared VPC, the project that it belongs to.
  network_project = try(regex("projects/([^/]+)/global/networks/", var.network)[0], var.project_id)
}

resource "google_compute_network" "vpc" {
  # checkov:skip=CKV2_GCP_18:A network of its own has no default rules: only GKE's and the one below let anything in
  count = var.create_network ? 1 : 0

  project                 = var.project_id
  name                    = "${var.cluster_name}-network"
  auto_create_subnetworks = false
  routing_mode            = "REGIONAL"

  depends_on = [google_project_service.required]
}

resource "google_compute_subnetwork" "machines" {
  count = var.create_network ? 1 : 0

  project                  = var.project_id
  region                   = var.region
  name                     = "${var.cluster_name}-subnet"
  network                  = google_compute_network.vpc[0].id
  ip_cidr_range            = var.subnet_cidr
  private_ip_google_access = true # buckets and Artifact Registry without NAT

  secondary_ip_range {
    range_name    = var.pods_range_name
    ip_cidr_range = var.pods_cidr
  }

  secondary_ip_range {
    range_name    = var.services_range_name
    ip_cidr_range = var.services_cidr
  }

  dynamic "log_config" {
    for_each = var.enable_flow_logs ? [1] : []
    content {
      aggregation_interval = "INTERVAL_10_MIN"
      flow_sampling        = 0.1
      metadata             = "EXCLUDE_ALL_METADATA"
    }
  }

  lifecycle {
    precondition {
      condition     = length(local.overlaps) == 0
      error_message = "Addresses overlap: ${join(", ", local.overlaps)}. Give subnet_cidr, pods_cidr, services_cidr and master_ipv4_cidr_block networks of their own."
    }
  }
}

# Machines without public addresses reach the Hugging Face hub and registries through NAT.
resource "google_compute_router" "nat" {
  count = var.create_network && var.enable_private_nodes ? 1 : 0

  project = var.project_id
  region  = var.region
  name    = "${var.cluster_name}-router"
  network = google_compute_network.vpc[0].id
}

resource "google_compute_router_nat" "nat" {
  count = var.create_network && var.enable_private_nodes ? 1 : 0

  project                            = var.project_id
  region                             = var.region
  name                               = "${var.cluster_name}-nat"
  router                             = google_compute_router.nat[0].name
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "LIST_OF_SUBNETWORKS"

  subnetwork {
    name                    = google_compute_subnetwork.machines[0].id
    source_ip_ranges_to_nat = ["ALL_IP_RANGES"]
  }

  log_config {
    enable = true
    filter = "ERRORS_ONLY"
  }
}

# GKE opens 443 and 10250 itself; KEDA's metrics listen on 6443, its webhooks and those of ingress-nginx on 9443 and 8443.
resource "google_compute_firewall" "webhooks" {
  count = var.create_webhook_firewall_rule && var.enable_private_nodes ? 1 : 0

  project                 = local.network_project
  name                    = "${var.cluster_name}-webhooks"
  description             = "The control plane of ${var.cluster_name} to webhooks and metrics in the cluster"
  network                 = local.network
  direction               = "INGRESS"
  source_ranges           = [var.master_ipv4_cidr_block]
  target_service_accounts = [google_service_account.nodes.email]

  allow {
    protocol = "tcp"
    ports    = ["6443", "8443", "9443"]
  }
}
