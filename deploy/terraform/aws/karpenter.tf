# Karpenter: its controller's rights, the queue that tells of machines about to go, and an EC2NodeClass and a NodePool
# for each GPU pool.

locals {
  karpenter    = var.enable_node_auto_provisioning
  owned        = { "kubernetes.io/cluster/${var.cluster_name}" = "owned" }
  ec2          = "arn:${local.partition}:ec2:${var.region}"
  ec2_of_nodes = [for kind in ["fleet", "instance", "volume", "network-interface", "launch-template", "spot-instances-request"] : "${local.ec2}:*:${kind}/*"]
  profiles     = "arn:${local.partition}:iam::${local.account}:instance-profile/*"

  resource_owned = { for key, value in local.owned : "aws:ResourceTag/${key}" => value }
  request_owned = merge(
    { for key, value in local.owned : "aws:RequestTag/${key}" => value },
    { "aws:RequestTag/eks:eks-cluster-name" = var.cluster_name },
  )
  resource_region = { "aws:ResourceTag/topology.kubernetes.io/region" = var.region }
  request_region  = { "aws:RequestTag/topology.kubernetes.io/region" = var.region }

  karpenter_events = {
    health    = { source = "aws.health", detail-type = "AWS Health Event" }
    spot      = { source = "aws.ec2", detail-type = "EC2 Spot Instance Interruption Warning" }
    rebalance = { source = "aws.ec2", detail-type = "EC2 Instance Rebalance Recommendation" }
    state     = { source = "aws.ec2", detail-type = "EC2 Instance State-change Notification" }
  }
}

resource "aws_iam_role_policy" "karpenter" {
  count = local.karpenter ? 1 : 0

  name = "machines"
  role = aws_iam_role.pod["karpenter"].name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "StartFromWhatIsThere"
        Effect   = "Allow"
        Action   = ["ec2:RunInstances", "ec2:CreateFleet"]
        Resource = concat([for kind in ["image", "snapshot"] : "${local.ec2}::${kind}/*"], [for kind in ["security-group", "subnet", "capacity-reservation"] : "${local.ec2}:*:${kind}/*"])
      },
      {
        Sid       = "StartFromItsOwnTemplates"
        Effect    = "Allow"
        Action    = ["ec2:RunInstances", "ec2:CreateFleet"]
        Resource  = "${local.ec2}:*:launch-template/*"
        Condition = { StringEquals = local.resource_owned, StringLike = { "aws:ResourceTag/karpenter.sh/nodepool" = "*" } }
      },
      {
        Sid       = "StartWithTheClustersTags"
        Effect    = "Allow"
        Action    = ["ec2:RunInstances", "ec2:CreateFleet", "ec2:CreateLaunchTemplate"]
        Resource  = local.ec2_of_nodes
        Condition = { StringEquals = local.request_owned, StringLike = { "aws:RequestTag/karpenter.sh/nodepool" = "*" } }
      },
      {
        Sid      = "TagWhatItStarts"
        Effect   = "Allow"
        Action   = "ec2:CreateTags"
        Resource = local.ec2_of_nodes
        Condition = {
          StringEquals = merge(local.request_owned, { "ec2:CreateAction" = ["RunInstances", "CreateFleet", "CreateLaunchTemplate"] })
          StringLike   = { "aws:RequestTag/karpenter.sh/nodepool" = "*" }
        }
      },
      {
        Sid      = "NameWhatItStarted"
        Effect   = "Allow"
        Action   = "ec2:CreateTags"
        Resource = "${local.ec2}:*:instance/*"
        Condition = {
          StringEquals                = local.resource_owned
          StringLike                  = { "aws:ResourceTag/karpenter.sh/nodepool" = "*" }
          StringEqualsIfExists        = { "aws:RequestTag/eks:eks-cluster-name" = var.cluster_name }
          "ForAllValues:StringEquals" = { "aws:TagKeys" = ["eks:eks-cluster-name", "karpenter.sh/nodeclaim", "Name"] }
        }
      },
      {
        Sid       = "EndWhatItStarted"
        Effect    = "Allow"
        Action    = ["ec2:TerminateInstances", "ec2:DeleteLaunchTemplate"]
        Resource  = ["${local.ec2}:*:instance/*", "${local.ec2}:*:launch-template/*"]
        Condition = { StringEquals = local.resource_owned, StringLike = { "aws:ResourceTag/karpenter.sh/nodepool" = "*" } }
      },
      {
        Sid    = "Look" # these actions know no resources
        Effect = "Allow"
        Action = [
          "ec2:DescribeCapacityReservations",
          "ec2:DescribeImages",
          "ec2:DescribeInstances",
          "ec2:DescribeInstanceTypeOfferings",
          "ec2:DescribeInstanceTypes",
          "ec2:DescribeLaunchTemplates",
          "ec2:DescribeSecurityGroups",
          "ec2:DescribeSpotPriceHistory",
          "ec2:DescribeSubnets",
        ]
        Resource  = "*"
        Condition = { StringEquals = { "aws:RequestedRegion" = var.region } }
      },
      {
        Sid      = "LookAtImages"
        Effect   = "Allow"
        Action   = "ssm:GetParameter"
        Resource = "arn:${local.partition}:ssm:${var.region}::parameter/aws/service/*"
      },
      {
        Sid      = "LookAtPrices"
        Effect   = "Allow"
        Action   = "pricing:GetProducts"
        Resource = "*"
      },
      {
        Sid      = "LookAtTheCluster"
        Effect   = "Allow"
        Action   = "eks:DescribeCluster"
        Resource = "arn:${local.partition}:eks:${var.region}:${local.account}:cluster/${var.cluster_name}"
      },
      {
        Sid      = "HearOfInterruptions"
        Effect   = "Allow"
        Action   = ["sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ReceiveMessage"]
        Resource = local.karpenter_queue_arn
      },
      {
        Sid       = "GiveMachinesTheirRole"
        Effect    = "Allow"
        Action    = "iam:PassRole"
        Resource  = "arn:${local.partition}:iam::${local.account}:role/${aws_iam_role.node.name}"
        Condition = { StringEquals = { "iam:PassedToService" = ["ec2.amazonaws.com", "ec2.amazonaws.com.cn"] } }
      },
      {
        Sid       = "MakeInstanceProfiles"
        Effect    = "Allow"
        Action    = "iam:CreateInstanceProfile"
        Resource  = local.profiles
        Condition = { StringEquals = merge(local.request_owned, local.request_region), StringLike = { "aws:RequestTag/karpenter.k8s.aws/ec2nodeclass" = "*" } }
      },
      {
        Sid      = "TagInstanceProfiles"
        Effect   = "Allow"
        Action   = "iam:TagInstanceProfile"
        Resource = local.profiles
        Condition = {
          StringEquals = merge(local.resource_owned, local.resource_region, local.request_owned, local.request_region)
          StringLike   = { "aws:ResourceTag/karpenter.k8s.aws/ec2nodeclass" = "*", "aws:RequestTag/karpenter.k8s.aws/ec2nodeclass" = "*" }
        }
      },
      {
        Sid       = "UseInstanceProfiles"
        Effect    = "Allow"
        Action    = ["iam:AddRoleToInstanceProfile", "iam:RemoveRoleFromInstanceProfile", "iam:DeleteInstanceProfile"]
        Resource  = local.profiles
        Condition = { StringEquals = merge(local.resource_owned, local.resource_region), StringLike = { "aws:ResourceTag/karpenter.k8s.aws/ec2nodeclass" = "*" } }
      },
      {
        Sid      = "LookAtInstanceProfiles"
        Effect   = "Allow"
        Action   = ["iam:GetInstanceProfile", "iam:ListInstanceProfiles"]
        Resource = local.profiles
      },
    ]
  })
}

locals { # spelled out, so that a plan shows the policies in full
  karpenter_queue_arn = "arn:${local.partition}:sqs:${var.region}:${local.account}:${var.cluster_name}-karpenter"
}

resource "aws_sqs_queue" "karpenter" {
  count = local.karpenter ? 1 : 0

  name                      = "${var.cluster_name}-karpenter"
  message_retention_seconds = 300 # a warning of a spot machine's end is worth two minutes
  sqs_managed_sse_enabled   = true
  tags                      = var.tags
}

resource "aws_sqs_queue_policy" "karpenter" {
  count = local.karpenter ? 1 : 0

  queue_url = aws_sqs_queue.karpenter[0].url
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "EventsOfThisAccount"
        Effect    = "Allow"
        Principal = { Service = "events.amazonaws.com" }
        Action    = "sqs:SendMessage"
        Resource  = local.karpenter_queue_arn
        Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
      },
      {
        Sid       = "TlsOnly"
        Effect    = "Deny"
        Principal = "*"
        Action    = "sqs:*"
        Resource  = local.karpenter_queue_arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

resource "aws_cloudwatch_event_rule" "karpenter" {
  for_each = { for name, event in local.karpenter_events : name => event if local.karpenter }

  name          = "${var.cluster_name}-karpenter-${each.key}"
  description   = "Tells Karpenter: ${each.value.detail-type}"
  event_pattern = jsonencode({ source = [each.value.source], detail-type = [each.value.detail-type] })
  tags          = var.tags
}

resource "aws_cloudwatch_event_target" "karpenter" {
  for_each = aws_cloudwatch_event_rule.karpenter

  rule = each.value.name
  arn  = aws_sqs_queue.karpenter[0].arn
}
