// Objects of any kind through the parts that all of them have: metadata (always field 1), spec and status. And what
// "equal" means for the API: an absent zero equals a present one unless the schema says that presence matters (`pointer`),
// an absent struct equals an empty one where the schema says so (`value`). Pure.
#pragma once

#include <google/protobuf/message.h>

#include <memory>
#include <string>

#include "base/clock.h"
#include "kube/api.h"
#include "kube/proto/apimachinery/meta_v1.pb.h"

namespace fairlead::apiserver {

using Message = google::protobuf::Message;

const metav1::ObjectMeta& meta_of(const Message& object);
metav1::ObjectMeta& mutable_meta_of(Message& object);

std::unique_ptr<Message> clone(const Message& object);

bool semantic_equal(const Message& a, const Message& b);
// Of the field with that name; true when the message has no such field.
bool field_equal(const Message& a, const Message& b, std::string_view field);
// Makes the field in `to` what it is in `from`, absence included. Nothing when there is no such field.
void copy_field(const Message& from, Message& to, std::string_view field);
void clear_field(Message& object, std::string_view field);

// The same object always gives the same bytes (maps in key order).
std::string deterministic_bytes(const Message& object);

metav1::Time to_time(WallTime t);             // whole seconds, as the API keeps them
metav1::MicroTime to_micro_time(WallTime t);
WallTime from_time(const metav1::Time& t);

}  // namespace fairlead::apiserver
