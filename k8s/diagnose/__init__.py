"""Diagnosis: why a run or a service on Kubernetes is not ready, and what a cluster lacks.

snapshot      reads a cluster once; everything else is pure
rules.yaml    what texts of Kubernetes, KubeRay, Kueue and Ray mean; rules reads it
ray, pods     lead from a run or a service down to the cause: texts for the rules, deepest first
checks        of `eagleray doctor --kubernetes`, with definitions and capacity
"""

from k8s.diagnose.ray import explain

__all__ = ["explain"]
