// Strategies and tables of CustomResourceDefinitions and of the objects they define.
#pragma once

#include <memory>

#include "controlplane/apiserver/custom/definition.h"
#include "controlplane/apiserver/registry/strategy.h"
#include "controlplane/apiserver/tables/table.h"

namespace fairlead::apiserver::custom {

// Keeps a definition until its objects are gone.
inline constexpr char kCleanup[] = "customresourcecleanup.apiextensions.k8s.io";

std::unique_ptr<Strategy> definition_strategy();
const TablePrinter& definition_printer();
// Of the objects of one version.
std::unique_ptr<Strategy> object_strategy(std::shared_ptr<const Version> version);
std::unique_ptr<TablePrinter> object_printer(std::shared_ptr<const Version> version);

// A stored definition of apiextensions.k8s.io/v1beta1, which is what kube-apiserver writes, as v1 has it.
void upgrade_definition(boost::json::object& stored);

}  // namespace fairlead::apiserver::custom
