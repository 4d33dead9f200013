// Tables: the columns and cells that `kubectl get` prints, made on the server (Accept: ...;as=Table). One printer per kind,
// with upstream's columns (pkg/printers/internalversion/printers.go); a kind without one prints Name and Age. Pure: the
// time for ages is passed in.
#pragma once

#include <boost/json/value.hpp>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "controlplane/apiserver/object.h"

namespace fairlead::apiserver {

struct Column {
  std::string_view name;
  std::string_view type;  // "string", "integer", "boolean", "number", "date"
  std::string_view format;
  std::string_view description;
  int priority = 0;  // 1: only with -o wide
};

struct Row {
  boost::json::array cells;
  boost::json::array conditions;  // empty: none
};

class TablePrinter {
 public:
  using Print = std::function<void(const Message& object, WallTime now, Row& row)>;
  TablePrinter(std::vector<Column> columns, Print print) : columns_(std::move(columns)), print_(print) {}
  std::span<const Column> columns() const { return columns_; }
  boost::json::array column_definitions() const;
  Row row(const Message& object, WallTime now) const;

 private:
  std::vector<Column> columns_;
  Print print_;
};

// By kind; the generic printer when there is no special one. Static storage.
const TablePrinter& table_printer(std::string_view group, std::string_view kind);

// "3m20s" and the like, as kubectl prints ages.
std::string human_duration(std::chrono::nanoseconds d);
std::string age_of(const metav1::Time& t, bool present, WallTime now);

// For the printers of single kinds.
const TablePrinter& pod_printer();
const TablePrinter& replica_set_printer();
const TablePrinter& deployment_printer();
const TablePrinter& service_printer();
const TablePrinter& endpoints_printer();
const TablePrinter& endpoint_slice_printer();
const TablePrinter& node_printer();
const TablePrinter& namespace_printer();
const TablePrinter& event_printer();
const TablePrinter& events_v1_printer();
const TablePrinter& config_map_printer();
const TablePrinter& secret_printer();
const TablePrinter& service_account_printer();
const TablePrinter& lease_printer();
const TablePrinter& ingress_printer();
const TablePrinter& ingress_class_printer();
const TablePrinter& ip_address_printer();
const TablePrinter& service_cidr_printer();

inline constexpr Column kNameColumn{"Name", "string", "name", "Name of the object, unique within its namespace.", 0};
inline constexpr Column kAgeColumn{"Age", "string", "", "Time since the object was created.", 0};

std::string join_labels(const google::protobuf::Map<std::string, std::string>& labels);  // "a=b,c=d" or "<none>"
std::string selector_text(const metav1::LabelSelector& selector);
std::string list_with_more(const std::vector<std::string>& list, std::size_t count, std::string_view when_empty);

}  // namespace fairlead::apiserver
