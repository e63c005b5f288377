mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  region = "eu-central-1"
}

run "nothing_is_installed_unless_asked" {
  command = plan

  assert {
    condition     = length(helm_release.nvidia_device_plugin) + length(helm_release.cluster_autoscaler) + length(helm_release.karpenter) + length(helm_release.karpenter_pools) + length(helm_release.ingress_nginx) + length(helm_release.sie) == 0
    error_message = "something is installed into a cluster that Terraform may not reach"
  }
  assert {
    condition     = length(aws_sqs_queue.karpenter) == 0 && length(aws_cloudwatch_event_rule.karpenter) == 0 && length(output.karpenter_objects) == 0
    error_message = "there are parts of Karpenter that nobody asked for"
  }
}

run "the_cluster_autoscaler_finds_its_groups" {
  command = plan

  variables {
    install_node_autoscaling = true
  }

  assert {
    condition     = length(helm_release.nvidia_device_plugin) == 1 && length(helm_release.karpenter) == 0
    error_message = "the device plugin is missing, or Karpenter is there too"
  }
  assert {
    condition     = yamldecode(helm_release.cluster_autoscaler[0].values[0]).autoDiscovery.clusterName == "sie-cluster" && yamldecode(helm_release.cluster_autoscaler[0].values[0]).awsRegion == "eu-central-1"
    error_message = "the autoscaler would look for groups of another cluster"
  }
  assert {
    condition     = yamldecode(helm_release.cluster_autoscaler[0].values[0]).rbac.serviceAccount.name == aws_eks_pod_identity_association.this["cluster-autoscaler"].service_account && helm_release.cluster_autoscaler[0].namespace == aws_eks_pod_identity_association.this["cluster-autoscaler"].namespace
    error_message = "the autoscaler's pod would not have its role"
  }
  assert {
    condition     = yamldecode(helm_release.nvidia_device_plugin[0].values[0]).tolerations == [{ operator = "Exists" }]
    error_message = "the device plugin would not run on tainted machines, and pods would wait for GPUs for ever"
  }
}

run "karpenter_makes_the_machines_instead_of_groups" {
  command = plan

  variables {
    enable_node_auto_provisioning = true
    install_node_autoscaling      = true
    gpu_node_pools = [
      { name = "l4-pool", machine_type = "g6.xlarge", max_node_count = 10, spot = true },
      { name = "a100-pool", machine_type = "p4d.24xlarge", max_node_count = 2, labels = { tier = "large" } },
    ]
  }

  assert {
    condition     = length(aws_eks_node_group.gpu) == 0 && length(aws_autoscaling_group_tag.scale_from_zero) == 0 && length(aws_iam_role_policy.cluster_autoscaler) == 0 && length(helm_release.cluster_autoscaler) == 0
    error_message = "there are node groups or the cluster autoscaler beside Karpenter"
  }
  assert {
    condition     = length(helm_release.karpenter) == 1 && length(helm_release.karpenter_pools) == 1 && aws_eks_pod_identity_association.this["karpenter"].service_account == "karpenter"
    error_message = "Karpenter or its pools are missing"
  }
  assert {
    condition     = [for object in output.karpenter_objects : "${object.kind}/${object.metadata.name}"] == ["EC2NodeClass/a100-pool", "NodePool/a100-pool", "EC2NodeClass/l4-pool", "NodePool/l4-pool"]
    error_message = "the objects are not one class and one pool for each pool"
  }
  assert {
    condition     = [for object in output.karpenter_objects : object.spec.limits if object.kind == "NodePool"] == [{ "nvidia.com/gpu" = "16" }, { "nvidia.com/gpu" = "10" }]
    error_message = "a pool can grow beyond its maximum"
  }
  assert {
    condition     = [for object in output.karpenter_objects : object.spec.template.metadata.labels if object.kind == "NodePool"] == [{ "eks.amazonaws.com/capacityType" = "ON_DEMAND", "k8s.amazonaws.com/accelerator" = "nvidia-tesla-a100", "node-type" = "gpu", tier = "large" }, { "eks.amazonaws.com/capacityType" = "SPOT", "k8s.amazonaws.com/accelerator" = "nvidia-l4", "node-type" = "gpu" }]
    error_message = "the chart would not find the machines by their labels"
  }
  assert {
    condition     = [for object in output.karpenter_objects : object.spec.template.spec.requirements if object.kind == "NodePool"][1][1].values == ["spot"] && [for object in output.karpenter_objects : object.spec.template.spec.taints if object.kind == "NodePool"][1] == [{ key = "nvidia.com/gpu", value = "present", effect = "NoSchedule" }]
    error_message = "the pool is not of tainted spot machines"
  }
  assert {
    condition     = alltrue([for object in output.karpenter_objects : object.spec.metadataOptions.httpTokens == "required" && object.spec.blockDeviceMappings[0].ebs.encrypted && object.spec.instanceStorePolicy == "RAID0" if object.kind == "EC2NodeClass"])
    error_message = "machines of Karpenter are less locked down than node groups"
  }
}

run "karpenter_hears_of_machines_about_to_go" {
  command = plan

  variables {
    enable_node_auto_provisioning = true
  }

  assert {
    condition     = toset([for rule in aws_cloudwatch_event_rule.karpenter : jsondecode(rule.event_pattern).detail-type[0]]) == toset(["AWS Health Event", "EC2 Spot Instance Interruption Warning", "EC2 Instance Rebalance Recommendation", "EC2 Instance State-change Notification"])
    error_message = "some event does not reach Karpenter"
  }
  assert {
    condition     = aws_sqs_queue.karpenter[0].sqs_managed_sse_enabled && length([for statement in jsondecode(aws_sqs_queue_policy.karpenter[0].policy).Statement : statement if statement.Effect == "Deny"]) == 1
    error_message = "the queue is not encrypted, or open without TLS"
  }
}

run "karpenter_may_end_its_own_machines_alone" {
  command = plan

  variables {
    enable_node_auto_provisioning = true
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_iam_role_policy.karpenter[0].policy).Statement :
      statement.Condition.StringEquals["aws:ResourceTag/kubernetes.io/cluster/sie-cluster"] == "owned"
      if length(setintersection(flatten([statement.Action]), ["ec2:TerminateInstances", "ec2:DeleteLaunchTemplate", "iam:DeleteInstanceProfile"])) > 0
    ])
    error_message = "Karpenter may end machines of others"
  }
  assert {
    condition     = length(aws_iam_role_policy.karpenter[0].policy) < 10240
    error_message = "the policy has ${length(aws_iam_role_policy.karpenter[0].policy)} characters, and IAM allows a role 10240"
  }
  assert {
    condition     = one([for statement in jsondecode(aws_iam_role_policy.karpenter[0].policy).Statement : statement.Resource if statement.Action == "iam:PassRole"]) == "arn:aws:iam::123456789012:role/sie-cluster-node"
    error_message = "Karpenter may give machines any role"
  }
}

run "the_ingress_controller_takes_your_annotations" {
  command = plan

  variables {
    install_ingress_nginx             = true
    ingress_nginx_service_annotations = { "service.beta.kubernetes.io/aws-load-balancer-internal" = "true" }
  }

  assert {
    condition = yamldecode(helm_release.ingress_nginx[0].values[0]).controller.service.annotations == {
      "service.beta.kubernetes.io/aws-load-balancer-type"     = "nlb"
      "service.beta.kubernetes.io/aws-load-balancer-internal" = "true"
    }
    error_message = "the load balancer would be public, or of the old kind"
  }
}

run "versions_of_charts_can_be_chosen" {
  command = plan

  variables {
    install_node_autoscaling = true
    chart_versions           = { cluster-autoscaler = "9.50.1" }
  }

  assert {
    condition     = helm_release.cluster_autoscaler[0].version == "9.50.1" && helm_release.nvidia_device_plugin[0].version == "0.17.1"
    error_message = "the versions are not those asked for"
  }
}
