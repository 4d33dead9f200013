// What kinds and fields mean, for `kubectl explain` and for generated clients. Our own words; the schema's names.
#include <string>
#include <unordered_map>

#include "kube/openapi.h"

namespace fairlead::kube {
namespace {

// A message (without the "k8s.io." in front) and what it is; below it its fields. One line each.
constexpr std::string_view kText[] = {
    R"(
apimachinery.pkg.apis.meta.v1.TypeMeta: What an object is: its kind and the version of the API that it is written in.
  apiVersion: Group and version of the schema that this object is written in, such as apps/v1, or v1 for the core group.
  kind: The kind of object, such as Pod. In CamelCase; it cannot be changed.
apimachinery.pkg.apis.meta.v1.ObjectMeta: Name, labels and bookkeeping that every stored object has.
  name: Name of the object, unique for its kind within its namespace. It cannot be changed. At most 253 lower case letters, digits, '-' and '.' for most kinds.
  generateName: If no name is given, the server appends five random characters to this prefix.
  namespace: The namespace that the object lives in. Empty for kinds that belong to the whole cluster. It cannot be changed.
  selfLink: Not used any more.
  uid: An identifier that the server gives to the object, never used again: a deleted and recreated object has another one.
  resourceVersion: Changes with every change of the object. Opaque to clients: send it back to change only what you have read, or to go on watching from there.
  generation: Counts the changes of what is wanted (the spec). Controllers write the one that they acted on into status.observedGeneration.
  creationTimestamp: When the server stored the object first.
  deletionTimestamp: When the object will be gone. Set by the server when the deletion was asked for and has to wait for a grace period or for finalizers.
  deletionGracePeriodSeconds: How long the object may take to end, in seconds, once its deletion was asked for.
  labels: Keys and values that identify the object for users and selectors. Services, ReplicaSets and others find their pods by labels.
  annotations: Keys and values with notes of tools. They are not used for selection and may be long.
  ownerReferences: Objects that this one depends on. When all of them are gone, the garbage collector deletes it.
  finalizers: Names of tasks that have to be done before a deleted object goes. Whoever did its task removes its name.
  managedFields: Who set which fields, kept by the server for server-side apply.
apimachinery.pkg.apis.meta.v1.ListMeta: Where a list was cut and how fresh it is.
  resourceVersion: The state of the store that this list shows. A watch that starts from it misses nothing.
  continue: Set when there are more objects: send it with the same request to get the next page.
  remainingItemCount: About how many objects follow after this page.
apimachinery.pkg.apis.meta.v1.OwnerReference: Names an object that another one depends on. It must be in the same namespace, or belong to the whole cluster.
  apiVersion: Version of the API that the owner is named in.
  kind: Kind of the owner.
  name: Name of the owner.
  uid: The owner's uid: another object of the same name is not the owner.
  controller: True for the one owner that manages this object.
  blockOwnerDeletion: With foreground deletion, the owner stays until this object is gone.
apimachinery.pkg.apis.meta.v1.LabelSelector: Chooses objects by their labels. All requirements must hold. An empty selector chooses every object.
  matchLabels: Labels that must be there with these values.
  matchExpressions: Further requirements on labels.
apimachinery.pkg.apis.meta.v1.LabelSelectorRequirement: A requirement on one label.
  key: The label's key.
  operator: In, NotIn, Exists or DoesNotExist.
  values: The values for In and NotIn.
apimachinery.pkg.apis.meta.v1.Condition: One aspect of an object's state.
  type: Name of the aspect, in CamelCase.
  status: True, False or Unknown.
  observedGeneration: The generation of the object that this was said about.
  lastTransitionTime: When the status changed last.
  reason: One word in CamelCase for programs.
  message: A sentence for people.
apimachinery.pkg.apis.meta.v1.Time: A point in time, in whole seconds, such as 2006-01-02T15:04:05Z.
apimachinery.pkg.apis.meta.v1.MicroTime: A point in time with microseconds, such as 2006-01-02T15:04:05.000000Z.
apimachinery.pkg.apis.meta.v1.FieldsV1: A set of fields, in the form that server-side apply uses.
apimachinery.pkg.apis.meta.v1.Status: The outcome of a request that did not return an object.
  status: Success or Failure.
  message: What happened, for people.
  reason: Why it failed, in one word for programs.
  details: More about the object and the fields that the failure is about.
  code: The HTTP status code.
apimachinery.pkg.apis.meta.v1.DeleteOptions: How an object is deleted.
  gracePeriodSeconds: How long the object may take to end; 0 is at once. Without it, the kind's own default holds.
  preconditions: The deletion fails if the object is not the one described here.
  propagationPolicy: What happens to dependents: Orphan keeps them, Background deletes them afterwards, Foreground before.
  dryRun: All: do everything but delete.
apimachinery.pkg.api.resource.Quantity: An exact number with a unit: 500m (thousandths), 2, 1.5Gi (1024-fold units Ki, Mi, Gi, Ti, Pi, Ei), 2G (1000-fold units k, M, G, T, P, E) or 1e3. Written back in canonical form.
apimachinery.pkg.util.intstr.IntOrString: A whole number or text, such as a port by number or by name, or a count or percentage.
apimachinery.pkg.runtime.RawExtension: Any JSON object, stored as it is.
)",
    R"(
api.core.v1.Namespace: A scope for names. Objects in different namespaces may have equal names; deleting a namespace deletes all that is in it.
  metadata: Name, labels and bookkeeping.
  spec: How the namespace behaves.
  status: The state of the namespace.
api.core.v1.NamespaceSpec: How a namespace behaves.
  finalizers: Tasks that have to be done before a deleted namespace goes, such as removing its content.
api.core.v1.NamespaceStatus: The state of a namespace.
  phase: Active, or Terminating while it is being deleted.
  conditions: What hinders the deletion.
api.core.v1.Node: A machine that runs pods.
  metadata: Name, labels and bookkeeping.
  spec: How the node is to be used.
  status: What the node agent says about the machine.
api.core.v1.NodeSpec: How a node is to be used.
  podCIDR: The range of addresses for the node's pods.
  podCIDRs: The ranges of addresses for the node's pods, at most one of each family; the first equals podCIDR.
  providerID: The machine's name at its cloud provider.
  unschedulable: True: the scheduler places no further pods here (kubectl cordon).
  taints: Marks that keep pods away unless they tolerate them.
api.core.v1.NodeStatus: What the node agent says about the machine.
  capacity: All resources of the machine.
  allocatable: What is left of them for pods.
  conditions: Ready and the pressures on memory, disk and process numbers.
  addresses: Addresses and names by which the node can be reached.
  daemonEndpoints: Ports of the node agent.
  nodeInfo: Versions and identifiers of the machine and its software.
  images: Container images that the node has.
api.core.v1.Taint: A mark on a node that keeps pods away.
  key: The taint's key.
  value: The taint's value.
  effect: NoSchedule: no further pods; PreferNoSchedule: rather not; NoExecute: running pods have to go as well.
  timeAdded: When a NoExecute taint was set.
api.core.v1.Pod: Containers that run together on one node and share an address.
  metadata: Name, labels and bookkeeping.
  spec: What is to run, and how.
  status: What the node agent says about it.
api.core.v1.PodTemplateSpec: The pods that a controller creates.
  metadata: Labels and annotations of the pods.
  spec: What is to run in them, and how.
api.core.v1.PodSpec: What runs in a pod, and how.
  volumes: Storage that the containers can mount.
  initContainers: Containers that run one after another, each to its end, before the others start. One with restartPolicy Always keeps running beside them.
  containers: The containers of the pod; at least one. The list cannot grow or shrink later.
  ephemeralContainers: Containers added to a running pod to look into it. Set through the ephemeralcontainers subresource.
  restartPolicy: When containers that ended are started again: Always, OnFailure or Never. Always if not given.
  terminationGracePeriodSeconds: How long the containers may take to end after they were asked to, before they are killed. 30 seconds if not given.
  activeDeadlineSeconds: How long the pod may be active, counted from its start, before it is ended as failed.
  dnsPolicy: Where names are resolved: ClusterFirst, ClusterFirstWithHostNet, Default (as the node does) or None (as dnsConfig says).
  nodeSelector: Labels that a node must have for the pod to be placed there.
  serviceAccountName: The ServiceAccount that the pod acts as. The one called default if not given.
  serviceAccount: Old name of serviceAccountName.
  automountServiceAccountToken: False: no token is mounted into the containers.
  nodeName: The node that the pod is bound to. Empty until the scheduler chose one.
  hostNetwork: True: the pod uses the node's network instead of one of its own.
  hostPID: True: the pod sees the node's processes.
  hostIPC: True: the pod shares the node's System V IPC and message queues.
  shareProcessNamespace: True: the containers see each other's processes.
  securityContext: Users, groups and privileges of all containers.
  imagePullSecrets: Secrets with credentials for pulling the images.
  hostname: The pod's host name, if it is not to be the pod's name.
  subdomain: With it the full name of the host is hostname.subdomain.namespace.svc and the cluster's domain.
  affinity: Wishes and requirements about nodes and about other pods on them.
  schedulerName: The scheduler that places the pod. default-scheduler if not given.
  tolerations: The taints of nodes that this pod puts up with.
  hostAliases: Further lines of /etc/hosts.
  priorityClassName: The PriorityClass that gives the pod its priority.
  priority: The higher it is, the earlier the pod is scheduled. Set by the server from the PriorityClass.
  dnsConfig: Servers, domains and options for the resolver, in addition to those of dnsPolicy.
  readinessGates: Conditions that must be True besides the containers' readiness for the pod to be ready.
  runtimeClassName: The RuntimeClass that the containers run with.
  enableServiceLinks: True (the default): the containers get environment variables about the namespace's services.
  preemptionPolicy: Whether pods of lower priority may be ended to make room: PreemptLowerPriority (the default) or Never.
  overhead: What running this pod costs besides its containers.
  topologySpreadConstraints: How pods are to be spread over nodes, zones and the like.
  setHostnameAsFQDN: True: the kernel's host name is the full name.
  os: The operating system that the containers are for.
  schedulingGates: While there are any, the scheduler leaves the pod alone.
  resources: What all containers together may use.
api.core.v1.PodStatus: What the node agent and others say about a pod.
  phase: Pending, Running, Succeeded, Failed or Unknown.
  conditions: Where the pod stands: PodScheduled, Initialized, ContainersReady, Ready.
  message: Why the pod is in this phase, for people.
  reason: Why the pod is in this phase, in one word.
  hostIP: Address of the node.
  hostIPs: Addresses of the node.
  podIP: Address of the pod.
  podIPs: Addresses of the pod, at most one of each family; the first equals podIP.
  startTime: When the node agent accepted the pod.
  initContainerStatuses: State of each init container.
  containerStatuses: State of each container.
  qosClass: Guaranteed, Burstable or BestEffort, as the containers' requests and limits say.
api.core.v1.PodCondition: One aspect of a pod's state.
  type: Name of the aspect, such as Ready.
  status: True, False or Unknown.
  lastTransitionTime: When the status changed last.
  reason: One word for programs.
  message: A sentence for people.
)",
    R"(
api.core.v1.Container: One container of a pod.
  name: Name of the container, unique in the pod.
  image: The image to run, such as registry.example.com/app:1.2.
  command: What to run instead of the image's entrypoint. $(NAME) stands for a variable of the environment.
  args: Arguments for the command, instead of those of the image. $(NAME) stands for a variable of the environment.
  workingDir: The folder to start in, if not that of the image.
  ports: Ports that the container listens on. For information and for names: a port not listed can be reached as well.
  envFrom: Sources of many environment variables at once.
  env: Environment variables.
  resources: What the container asks for and what it may use at most.
  restartPolicy: Of an init container: Always makes it a companion that runs as long as the pod.
  volumeMounts: Where volumes of the pod appear in the container's file system.
  volumeDevices: Where block devices appear.
  livenessProbe: Checks whether the container still works. It is restarted when this fails.
  readinessProbe: Checks whether the container can serve. The pod gets no traffic from services while this fails.
  startupProbe: Until it succeeds, the other probes wait.
  lifecycle: What to do right after the start and before the end.
  terminationMessagePath: A file with the container's last words; it ends up in the status.
  terminationMessagePolicy: File, or FallbackToLogsOnError to take the end of the log.
  imagePullPolicy: Always, IfNotPresent or Never. Always for the tag latest, else IfNotPresent, if not given.
  securityContext: User, group and privileges of this container.
  stdin: True: keep the standard input open.
  stdinOnce: True: close the standard input after the first client went.
  tty: True: give the container a terminal.
api.core.v1.ContainerPort: A port that a container listens on.
  name: A name for it, which services and probes can use.
  containerPort: The port's number, 1 to 65535.
  hostPort: Also offer it on this port of the node.
  protocol: TCP (the default), UDP or SCTP.
  hostIP: The node's address for hostPort.
api.core.v1.EnvVar: An environment variable.
  name: Name of the variable.
  value: Its value. $(NAME) stands for a variable defined before.
  valueFrom: Where to take the value from instead.
api.core.v1.EnvVarSource: Where a variable's value comes from.
  fieldRef: A field of the pod, such as metadata.name or status.podIP.
  resourceFieldRef: A request or limit of the container.
  configMapKeyRef: A key of a ConfigMap.
  secretKeyRef: A key of a Secret.
api.core.v1.ResourceRequirements: What is asked for and what may be used at most.
  requests: What the scheduler sets aside. The limits if not given.
  limits: More than this cannot be used: cpu is throttled, memory ends the container.
api.core.v1.Probe: A check that the node agent makes of a container.
  initialDelaySeconds: Wait this long after the start.
  timeoutSeconds: A check that takes longer failed. 1 if not given.
  periodSeconds: Time between two checks. 10 if not given.
  successThreshold: This many successes in a row after a failure make a success.
  failureThreshold: This many failures in a row make a failure. 3 if not given.
  terminationGracePeriodSeconds: The grace period for the container when this probe ends it.
api.core.v1.ProbeHandler: How to check.
  exec: Run a command in the container; exit code 0 is success.
  httpGet: Make an HTTP request; 200 to 399 is success.
  tcpSocket: Open a connection.
  grpc: Call the gRPC health service.
api.core.v1.HTTPGetAction: An HTTP request to the container.
  path: Path to ask for.
  port: Port by number, or by the name of one of the container's ports.
  host: Host to connect to, if not the pod.
  scheme: HTTP or HTTPS.
  httpHeaders: Headers to send.
api.core.v1.Lifecycle: Actions around a container's life.
  postStart: Done right after the start; failure ends the container.
  preStop: Done before the container is asked to end.
api.core.v1.VolumeMount: Makes a volume appear in a container.
  name: The volume of the pod.
  mountPath: Where it appears; not with a ':'.
  readOnly: True: it cannot be written.
  subPath: Only this path of the volume.
api.core.v1.Volume: Storage that containers of a pod can mount.
  name: Name of the volume, unique in the pod.
api.core.v1.VolumeSource: What a volume is made of.
  emptyDir: An empty folder that lives as long as the pod.
  hostPath: A file or folder of the node.
  configMap: The keys of a ConfigMap, as files.
  secret: The keys of a Secret, as files.
  downwardAPI: Fields of the pod, as files.
  projected: Several of these in one folder.
  persistentVolumeClaim: The storage that a claim was given.
api.core.v1.SecurityContext: User, group and privileges of one container.
  privileged: True: almost everything that root may do on the node.
  runAsUser: User id of the first process.
  runAsGroup: Group id of the first process.
  runAsNonRoot: True: refuse to start as root.
  readOnlyRootFilesystem: True: the root file system cannot be written.
  allowPrivilegeEscalation: False: no process can get more privileges than the one that started it.
  capabilities: Linux capabilities to add and to drop.
api.core.v1.Toleration: Lets a pod onto nodes with a taint.
  key: The taint's key; empty with Exists means every taint.
  operator: Equal (the default) or Exists.
  value: The taint's value, with Equal.
  effect: The taint's effect; empty means every effect.
  tolerationSeconds: With NoExecute: stay this long, then go.
api.core.v1.Affinity: Wishes and requirements about where a pod runs.
  nodeAffinity: About the labels of nodes.
  podAffinity: Near which pods.
  podAntiAffinity: Away from which pods.
api.core.v1.TopologySpreadConstraint: How evenly pods are spread.
  maxSkew: How much the fullest place may exceed the emptiest.
  topologyKey: Nodes with equal values of this label are one place.
  whenUnsatisfiable: DoNotSchedule or ScheduleAnyway.
  labelSelector: The pods that are counted.
)",
    R"(
api.core.v1.Service: One stable address and name for a changing set of pods.
  metadata: Name, labels and bookkeeping.
  spec: Which pods, on which ports, and how they are reached.
  status: Addresses that a load balancer gave.
api.core.v1.ServiceSpec: Which pods a service stands for, and how it is reached.
  ports: The ports of the service.
  selector: Labels of the pods that serve. Without it, somebody else writes the endpoints.
  clusterIP: The service's address in the cluster, chosen by the server if not given; None for a service without one (headless). It cannot be changed.
  clusterIPs: The service's addresses, at most one of each family; the first equals clusterIP.
  type: ClusterIP (the default): within the cluster; NodePort: also on a port of every node; LoadBalancer: also through an external address; ExternalName: only an alias in DNS.
  externalIPs: Further addresses at which nodes take traffic for this service; routing it to them is yours to do.
  sessionAffinity: ClientIP: a client keeps its pod; None (the default).
  sessionAffinityConfig: How long with ClientIP.
  loadBalancerIP: Wanted external address. Deprecated.
  loadBalancerSourceRanges: Only clients from these ranges get through the load balancer.
  loadBalancerClass: The implementation that is to provide the load balancer.
  externalName: The DNS name that an ExternalName service stands for.
  externalTrafficPolicy: For traffic from outside: Cluster (any pod, client address hidden) or Local (only pods of the node it came in at, client address kept).
  internalTrafficPolicy: For traffic from inside: Cluster (any pod) or Local (only pods of the same node).
  healthCheckNodePort: With Local: the port where nodes say whether they have pods.
  publishNotReadyAddresses: True: pods count as ready even when they are not.
  ipFamilies: IPv4, IPv6 or both, in order.
  ipFamilyPolicy: SingleStack, PreferDualStack or RequireDualStack.
  allocateLoadBalancerNodePorts: False: a LoadBalancer service gets no node ports.
  trafficDistribution: A preference for endpoints near the client: PreferSameZone, PreferSameNode.
api.core.v1.ServicePort: One port of a service.
  name: Name of the port; needed when there are several.
  protocol: TCP (the default), UDP or SCTP.
  appProtocol: What is spoken on the port, such as http or kubernetes.io/h2c.
  port: The port of the service.
  targetPort: The port of the pods, by number or by the name of a container's port. The same as port if not given.
  nodePort: The port on every node, for NodePort and LoadBalancer; chosen by the server if not given.
api.core.v1.ServiceStatus: What became of a service.
  loadBalancer: Addresses that the load balancer gave.
  conditions: The state of the service.
api.core.v1.Endpoints: Addresses behind a service, in the old form. Newer clients read EndpointSlices.
  subsets: Addresses with the ports that they share.
api.discovery.v1.EndpointSlice: Some of the endpoints of a service: a service may have several slices.
  addressType: IPv4, IPv6 or FQDN; the same for all endpoints of the slice. It cannot be changed.
  endpoints: The endpoints, at most 1000.
  ports: The ports that each endpoint serves.
api.discovery.v1.Endpoint: One backend of a service.
  addresses: Its addresses; clients use the first.
  conditions: Whether it can be used.
  hostname: Its host name.
  targetRef: The object behind it, usually a pod.
  nodeName: The node that it runs on.
  zone: The zone that it runs in.
  hints: Where it should be used from.
api.discovery.v1.EndpointConditions: Whether an endpoint can be used.
  ready: It takes new connections and is not about to go.
  serving: It takes connections, even though it may be about to go.
  terminating: It is about to go.
api.discovery.v1.EndpointPort: A port of the endpoints of a slice.
  name: The name of the service's port.
  protocol: TCP, UDP or SCTP.
  port: Its number.
  appProtocol: What is spoken on it.
api.core.v1.ConfigMap: Settings as keys and values, for pods to read as files or variables.
  data: Values in UTF-8.
  binaryData: Values of any bytes, in base64.
  immutable: True: the data cannot be changed any more.
api.core.v1.Secret: Keys and values that only few should see.
  data: Values, in base64.
  stringData: Values as plain text; only for writing, they end up in data.
  type: What it is for; Opaque if not given.
  immutable: True: the data cannot be changed any more.
api.core.v1.ServiceAccount: An identity for programs that run in pods.
  secrets: Secrets that its pods may use.
  imagePullSecrets: Secrets for pulling images, for all its pods.
  automountServiceAccountToken: False: its pods get no token.
api.core.v1.Event: Something that happened to an object. Events are kept for a short time only.
  involvedObject: The object that it happened to.
  reason: What happened, in one word.
  message: What happened, for people.
  type: Normal or Warning.
  count: How often.
  firstTimestamp: When it was seen first.
  lastTimestamp: When it was seen last.
  reportingComponent: Who reported it.
api.events.v1.Event: Something that happened to an object. Events are kept for a short time only.
  eventTime: When it was seen first.
  reportingController: Who reported it.
  reportingInstance: Which instance of the reporter.
  action: What was done about the object.
  reason: Why it was done, in one word.
  regarding: The object that it happened to.
  related: Another object that has to do with it.
  note: What happened, for people.
  type: Normal or Warning.
api.coordination.v1.Lease: Says who holds something and until when: the heartbeat of a node, or the leader of several instances.
  spec: Who holds it, and for how long.
api.coordination.v1.LeaseSpec: Who holds a lease, and for how long.
  holderIdentity: The holder.
  leaseDurationSeconds: How long after renewTime others must wait before they take it.
  acquireTime: When the holder took it.
  renewTime: When the holder renewed it last.
  leaseTransitions: How often it changed hands.
)",
    R"(
api.apps.v1.Deployment: Keeps a number of equal pods running and replaces them step by step when their template changes.
  metadata: Name, labels and bookkeeping.
  spec: How many pods, made from what, and how they are replaced.
  status: How far it has come.
api.apps.v1.DeploymentSpec: How many pods a deployment keeps, made from what, and how they are replaced.
  replicas: Number of pods wanted. 1 if not given; 0 is allowed.
  selector: Chooses the pods that belong to this deployment. It must match the template's labels and cannot be changed.
  template: The pods to create. A change of it starts a rollout.
  strategy: How old pods are replaced by new ones.
  minReadySeconds: A new pod counts as available once it has been ready for so long.
  revisionHistoryLimit: How many old ReplicaSets are kept for rolling back. 10 if not given.
  paused: True: changes of the template are not rolled out.
  progressDeadlineSeconds: A rollout without progress for so long is reported as failed. 600 if not given.
api.apps.v1.DeploymentStrategy: How old pods are replaced by new ones.
  type: RollingUpdate (the default): step by step; Recreate: all old ones go first.
  rollingUpdate: The size of the steps.
api.apps.v1.RollingUpdateDeployment: The size of the steps of a rolling update.
  maxUnavailable: How many pods may be missing, as a number or a percentage (rounded down). 25% if not given.
  maxSurge: How many pods there may be in addition, as a number or a percentage (rounded up). 25% if not given.
api.apps.v1.DeploymentStatus: How far a deployment has come.
  observedGeneration: The generation of the deployment that this is about.
  replicas: Number of its pods, old and new.
  updatedReplicas: Number of pods made from the present template.
  readyReplicas: Number of pods that are ready.
  availableReplicas: Number of pods that have been ready for minReadySeconds.
  unavailableReplicas: Number of pods still missing.
  conditions: Available, Progressing and ReplicaFailure.
  collisionCount: Keeps names of ReplicaSets apart.
api.apps.v1.ReplicaSet: Keeps a number of equal pods running. Usually made by a Deployment.
  metadata: Name, labels and bookkeeping.
  spec: How many pods, made from what.
  status: How many there are.
api.apps.v1.ReplicaSetSpec: How many pods a ReplicaSet keeps, made from what.
  replicas: Number of pods wanted. 1 if not given; 0 is allowed.
  minReadySeconds: A new pod counts as available once it has been ready for so long.
  selector: Chooses the pods that belong to it. It must match the template's labels and cannot be changed.
  template: The pods to create when some are missing.
api.apps.v1.ReplicaSetStatus: How many pods a ReplicaSet has.
  replicas: Number of its pods.
  fullyLabeledReplicas: Number of pods with all labels of the template.
  readyReplicas: Number of pods that are ready.
  availableReplicas: Number of pods that have been ready for minReadySeconds.
  observedGeneration: The generation of the ReplicaSet that this is about.
  conditions: What went wrong.
api.autoscaling.v1.Scale: The number of pods of something that can be scaled.
  spec: The number wanted.
  status: The number there is.
api.autoscaling.v1.ScaleSpec: The number of pods wanted.
  replicas: Number of pods wanted.
api.autoscaling.v1.ScaleStatus: The number of pods there is.
  replicas: Number of pods there is.
  selector: Chooses the pods that are counted.
api.networking.v1.Ingress: Rules for HTTP requests from outside: which host and path goes to which service.
  metadata: Name, labels and bookkeeping.
  spec: The rules.
  status: Addresses at which they are served.
api.networking.v1.IngressSpec: The rules of an Ingress.
  ingressClassName: The IngressClass whose implementation serves it.
  defaultBackend: Where requests go that match no rule.
  tls: Certificates by host.
  rules: Hosts and paths. Without any, everything goes to the default backend.
api.networking.v1.IngressTLS: A certificate, and the hosts that it is for.
  hosts: Names in the certificate. All hosts of the Ingress if empty.
  secretName: A Secret of type kubernetes.io/tls in the same namespace. Without one, the router's own certificate is used.
api.networking.v1.IngressRule: Where requests for one host go.
  host: A full name, or a wildcard such as *.example.com for names with one more label. Empty: any host.
api.networking.v1.HTTPIngressRuleValue: Where requests go by their path.
  paths: The paths and what is behind them.
api.networking.v1.HTTPIngressPath: A path and what is behind it.
  path: The path of the request's URL, beginning with a slash.
  pathType: Exact: this path alone. Prefix: this path and what lies below it, by whole elements. ImplementationSpecific: as the implementation says.
  backend: Where the requests go.
api.networking.v1.IngressBackend: Where requests go: a port of a service, or another object in the same namespace.
  service: A service in the same namespace.
  resource: An object of another kind that the implementation knows.
api.networking.v1.IngressServiceBackend: A port of a service.
  name: Name of the service.
  port: The port, by name or by number.
api.networking.v1.ServiceBackendPort: A port by its name or its number.
  name: Name of the port.
  number: Number of the port.
api.networking.v1.IngressStatus: At which addresses an Ingress is served.
  loadBalancer: The addresses.
api.networking.v1.IngressClass: Which implementation serves the Ingresses that name it.
  metadata: Name, labels and bookkeeping. The annotation ingressclass.kubernetes.io/is-default-class makes it the class of Ingresses that name none.
  spec: The implementation and its settings.
api.networking.v1.IngressClassSpec: The implementation of a class.
  controller: Name of the implementation, a domain and a path, such as example.com/ingress. It cannot be changed.
  parameters: An object with further settings.
api.networking.v1.IngressClassParametersReference: Names an object with settings.
  aPIGroup: Its API group. Empty for the core group.
  kind: Its kind.
  name: Its name.
  scope: Cluster or Namespace.
  namespace: Its namespace, with scope Namespace.
api.networking.v1.IPAddress: An address in use. Its name is the address.
  metadata: Name, labels and bookkeeping.
  spec: What it is used for.
api.networking.v1.IPAddressSpec: What an address is used for.
  parentRef: The object that has it.
api.networking.v1.ParentReference: The object that has an address.
  group: Its API group. Empty for the core group.
  resource: Its resource name, such as services.
  namespace: Its namespace.
  name: Its name.
api.networking.v1.ServiceCIDR: Ranges of addresses that services are given.
  metadata: Name, labels and bookkeeping.
  spec: The ranges.
  status: Whether addresses are taken from them.
api.networking.v1.ServiceCIDRSpec: Ranges of addresses.
  cidrs: One range, or one of each family. They cannot be changed, but a second family may be added.
api.networking.v1.ServiceCIDRStatus: The state of ranges.
  conditions: Ready: addresses are taken from them.
api.networking.v1.NetworkPolicy: Which traffic the chosen pods may have.
  spec: The pods, and the traffic that is allowed.
api.networking.v1.NetworkPolicySpec: The pods of a policy, and the traffic that is allowed.
  podSelector: The pods that it is about. An empty selector means all pods of the namespace.
  ingress: What may come in. No rule: nothing.
  egress: What may go out. No rule: nothing, if policyTypes has Egress.
  policyTypes: Ingress, Egress or both.
)",
};

std::string key_of(std::string_view message, std::string_view field) { return std::string(message) + "#" + std::string(field); }

using Table = std::unordered_map<std::string, std::string_view>;

Table read_table() {
  Table out;
  std::string message;
  for (std::string_view block : kText) {
    while (!block.empty()) {
      const auto end = std::min(block.find('\n'), block.size());
      std::string_view line = block.substr(0, end);
      block.remove_prefix(std::min(end + 1, block.size()));
      const bool field = line.starts_with("  ");
      if (field) line.remove_prefix(2);
      const auto colon = line.find(": ");
      if (colon == std::string_view::npos) continue;
      const auto name = line.substr(0, colon), text = line.substr(colon + 2);
      if (!field) message = "k8s.io." + std::string(name);
      out.emplace(key_of(message, field ? name : std::string_view()), text);
    }
  }
  return out;
}

const Table& table() {
  static const auto* t = new Table(read_table());
  return *t;
}

}  // namespace

std::string_view api_description(std::string_view message, std::string_view field) {
  const auto find = [](std::string_view m, std::string_view f) {
    const auto it = table().find(key_of(m, f));
    return it == table().end() ? std::string_view() : it->second;
  };
  if (const auto text = find(message, field); !text.empty() || field.empty()) return text;
  // What is said about every object, and what an ephemeral container shares with others.
  if (field == "metadata")
    return message.ends_with("List") ? "Where the list was cut and how fresh it is." : "Name, labels and bookkeeping.";
  if (field == "items" && message.ends_with("List")) return "The objects.";
  if (message == "k8s.io.api.core.v1.EphemeralContainerCommon") return find("k8s.io.api.core.v1.Container", field);
  return {};
}

std::vector<std::string> described_names() {
  std::vector<std::string> out;
  for (const auto& [key, text] : table()) out.push_back(key);
  return out;
}

}  // namespace fairlead::kube
