// Short names for the generated Kubernetes API types. Include the .pb.h of the kind you need next to this.
//   corev1::Pod, appsv1::Deployment, discoveryv1::EndpointSlice, metav1::ObjectMeta ...
#pragma once

namespace k8s::io::api::core::v1 {}
namespace k8s::io::api::apps::v1 {}
namespace k8s::io::api::discovery::v1 {}
namespace k8s::io::api::networking::v1 {}
namespace k8s::io::api::coordination::v1 {}
namespace k8s::io::api::events::v1 {}
namespace k8s::io::api::autoscaling::v1 {}
namespace k8s::io::api::authentication::v1 {}
namespace k8s::io::api::authorization::v1 {}
namespace k8s::io::api::rbac::v1 {}
namespace k8s::io::api::policy::v1 {}
namespace k8s::io::apimachinery::pkg::apis::meta::v1 {}
namespace k8s::io::apimachinery::pkg::api::resource {}
namespace k8s::io::apimachinery::pkg::util::intstr {}
namespace k8s::io::apimachinery::pkg::runtime {}

namespace fairlead {
namespace corev1 = ::k8s::io::api::core::v1;
namespace appsv1 = ::k8s::io::api::apps::v1;
namespace discoveryv1 = ::k8s::io::api::discovery::v1;
namespace networkingv1 = ::k8s::io::api::networking::v1;
namespace coordinationv1 = ::k8s::io::api::coordination::v1;
namespace eventsv1 = ::k8s::io::api::events::v1;
namespace autoscalingv1 = ::k8s::io::api::autoscaling::v1;
namespace authenticationv1 = ::k8s::io::api::authentication::v1;
namespace authorizationv1 = ::k8s::io::api::authorization::v1;
namespace rbacv1 = ::k8s::io::api::rbac::v1;
namespace policyv1 = ::k8s::io::api::policy::v1;
namespace metav1 = ::k8s::io::apimachinery::pkg::apis::meta::v1;
namespace resource = ::k8s::io::apimachinery::pkg::api::resource;
namespace intstr = ::k8s::io::apimachinery::pkg::util::intstr;
namespace runtimepb = ::k8s::io::apimachinery::pkg::runtime;
}  // namespace fairlead
