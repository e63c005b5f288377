# Who may do what in AWS. Pods get their roles by EKS Pod Identity: no keys, no annotations, and the trust names
# the cluster, the namespace and the account, so that no other pod can have the role.

locals {
  # By role: the Kubernetes account that has it.
  pod_accounts = merge(
    {
      vpc-cni = { namespace = "kube-system", service_account = "aws-node" }
      ebs-csi = { namespace = "kube-system", service_account = "ebs-csi-controller-sa" }
    },
    var.enable_node_auto_provisioning ? {
      karpenter = { namespace = "kube-system", service_account = "karpenter" }
      } : {
      cluster-autoscaler = { namespace = "kube-system", service_account = "cluster-autoscaler" }
    },
    var.enable_workload_identity ? {
      workload = { namespace = var.sie_namespace, service_account = var.sie_service_account_name }
    } : {},
  )
}

resource "aws_iam_role" "pod" {
  for_each = local.pod_accounts

  name = "${var.cluster_name}-${each.key}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = {
        StringEquals = {
          "aws:SourceAccount"                         = local.account
          "aws:RequestTag/eks-cluster-name"           = var.cluster_name
          "aws:RequestTag/kubernetes-namespace"       = each.value.namespace
          "aws:RequestTag/kubernetes-service-account" = each.value.service_account
        }
      }
    }]
  })
  tags = var.tags
}

# The add-ons' own associations are in addons.tf.
resource "aws_eks_pod_identity_association" "this" {
  for_each = { for name, account in local.pod_accounts : name => account if !contains(["vpc-cni", "ebs-csi"], name) }

  cluster_name    = aws_eks_cluster.this.name
  namespace       = each.value.namespace
  service_account = each.value.service_account
  role_arn        = aws_iam_role.pod[each.key].arn
  tags            = var.tags
}

resource "aws_iam_role_policy_attachment" "vpc_cni" {
  role       = aws_iam_role.pod["vpc-cni"].name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AmazonEKS_CNI_Policy"
}

resource "aws_iam_role_policy_attachment" "ebs_csi" {
  role       = aws_iam_role.pod["ebs-csi"].name
  policy_arn = "arn:${local.partition}:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy"
}

# Machines: join the cluster and pull images. Pods cannot reach this role, because the metadata service answers one hop only.
resource "aws_iam_role" "node" {
  name = "${var.cluster_name}-node"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
  tags = var.tags
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = toset(["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly"])

  role       = aws_iam_role.node.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/${each.key}"
}

# Workers: the models in the bucket, and nothing else.
resource "aws_iam_role_policy" "workload" {
  count = var.enable_workload_identity && local.model_cache_bucket != null ? 1 : 0

  name   = "model-cache"
  role   = aws_iam_role.pod["workload"].name
  policy = jsonencode({ Version = "2012-10-17", Statement = local.model_cache_statements })
}

resource "aws_iam_role_policy" "cluster_autoscaler" {
  count = var.enable_node_auto_provisioning ? 0 : 1

  name = "scale-node-groups"
  role = aws_iam_role.pod["cluster-autoscaler"].name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Look" # these actions know no resources
        Effect = "Allow"
        Action = [
          "autoscaling:DescribeAutoScalingGroups",
          "autoscaling:DescribeAutoScalingInstances",
          "autoscaling:DescribeLaunchConfigurations",
          "autoscaling:DescribeScalingActivities",
          "autoscaling:DescribeTags",
          "ec2:DescribeImages",
          "ec2:DescribeInstanceTypes",
          "ec2:DescribeLaunchTemplateVersions",
          "ec2:GetInstanceTypesFromInstanceRequirements",
        ]
        Resource = "*"
      },
      {
        Sid      = "LookAtNodeGroups"
        Effect   = "Allow"
        Action   = "eks:DescribeNodegroup"
        Resource = "arn:${local.partition}:eks:${var.region}:${local.account}:nodegroup/${var.cluster_name}/*"
      },
      {
        Sid       = "ScaleGroupsOfThisCluster"
        Effect    = "Allow"
        Action    = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
        Resource  = "arn:${local.partition}:autoscaling:${var.region}:${local.account}:autoScalingGroup:*"
        Condition = { StringEquals = { "aws:ResourceTag/k8s.io/cluster-autoscaler/${var.cluster_name}" = "owned" } }
      },
    ]
  })
}
