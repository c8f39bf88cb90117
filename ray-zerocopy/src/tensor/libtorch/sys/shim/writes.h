// Analysis of writes: how the methods of a module modify the module's own tensors.
//
// Part of `shim.cpp`.

#pragma once

#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/script.h>

#include <optional>
#include <set>
#include <string>
#include <vector>

namespace {

using torch::jit::AliasDb;
using torch::jit::Node;
using torch::jit::Value;
namespace prim = c10::prim;

using Told = void (*)(void *, const char *name, const char *what);

bool is_module(const c10::TypePtr &type) {
  auto object = type->cast<c10::ClassType>();
  return object && object->is_module();
}

bool is_tensor(const c10::TypePtr &type) {
  if (auto optional = type->cast<c10::OptionalType>()) return is_tensor(optional->getElementType());
  return type->isSubtypeOf(*c10::TensorType::get());
}

// Returns true for lists, dictionaries, tuples and objects. Plain values contain no tensors.
bool may_hold_tensors(const c10::TypePtr &type) {
  switch (type->kind()) {
    case c10::TypeKind::IntType:
    case c10::TypeKind::FloatType:
    case c10::TypeKind::BoolType:
    case c10::TypeKind::NumberType:
    case c10::TypeKind::ComplexType:
    case c10::TypeKind::StringType:
    case c10::TypeKind::NoneType:
    case c10::TypeKind::DeviceObjType:
      return false;
    default:
      // A list of numbers, or an optional one.
      if (type->containedTypes().empty()) return true;
      for (const auto &inner : type->containedTypes()) {
        if (may_hold_tensors(inner)) return true;
      }
      return false;
  }
}

// Finds the writes of a module's methods to its own tensors, with torch's alias analysis. The
// analysis misses operations that return one of their arguments without declaring it in their
// schemas.
class Writes {
 public:
  Writes(void *context, Told told) : context_(context), told_(told) {}

  void method(const torch::jit::Method &method) {
    auto graph = method.graph()->copy();
    torch::jit::Inline(*graph);
    name_ = method.name();
    self_ = graph->inputs().at(0);
    own_.clear();
    containers_.clear();
    nodes_.clear();
    written_.clear();
    // Arguments are copies, and never tensors of the module, but the analysis assumes that they may
    // alias. So each argument is replaced by a new tensor, whose value does not matter.
    for (auto *input : graph->inputs()) {
      if (input == self_ || !is_tensor(input->type())) continue;
      torch::jit::WithInsertPoint at_the_start(graph->block()->nodes().front());
      auto *some = graph->insertConstant(torch::zeros({1}));
      auto *none = graph->insertNode(graph->createNone())->output();
      auto *copy = graph->insertNode(graph->create(c10::aten::clone, {some, none}))->output();
      copy->setType(input->type());
      input->replaceAllUsesWith(copy);
    }
    // Treat attributes as distinct objects. Otherwise all of them may alias, and a write to one
    // counts as a write to any.
    AliasDb aliases(graph, /*isFrozen=*/true);
    gather(aliases, graph->block());
    for (auto *tensor : own_) {
      if (!aliases.hasWriters(tensor)) continue;
      // The analysis assumes that a value from an optional or a list may be any tensor.
      if (auto *node = writer(tensor)) tell(tensor, std::string("writes into it by ") + node->kind().toQualString());
    }
    for (auto *container : containers_) {
      for (auto *written : written_) {
        if (aliases.mayContainAlias(container, written)) {
          tell(container, "writes into a tensor of it");
        }
      }
    }
    // The operation's schema does not declare writes of running statistics.
    for (auto *node : nodes_) statistics(aliases, node);
    // A tensor that is stored under another name could be written by another call.
    for (auto *node : nodes_) kept(aliases, node);
  }

 private:
  void gather(AliasDb &aliases, torch::jit::Block *block) {
    for (auto *node : block->nodes()) {
      nodes_.push_back(node);
      for (auto *output : node->outputs()) note(aliases, output);
      if (node->kind() == prim::CallMethod || node->kind() == prim::CallFunction) {
        told_(context_, "", (name_ + " calls a method of an interface").c_str());
      } else if (node->hasAttribute(c10::attr::Subgraph)) {
        told_(context_, "", (name_ + " runs a part of itself apart, with " + node->kind().toQualString()).c_str());
      } else if (node->kind() == prim::GetAttr && is_module(node->inputs().at(0)->type())) {
        auto type = node->output()->type();
        if (is_tensor(type)) {
          own_.push_back(node->output());
        } else if (!is_module(type) && may_hold_tensors(type)) {
          containers_.push_back(node->output());
        }
      }
      for (auto *inner : node->blocks()) {
        for (auto *input : inner->inputs()) note(aliases, input);
        gather(aliases, inner);
      }
    }
  }

  void note(AliasDb &aliases, Value *value) {
    if (is_tensor(value->type()) && aliases.hasWriters(value)) written_.push_back(value);
  }

  void statistics(AliasDb &aliases, Node *node) {
    auto *schema = node->maybeSchema();
    if (!schema || !schema->argumentIndexWithName("running_mean")) return;
    // Instance norm always writes them.
    if (schema->argumentIndexWithName("training")) {
      auto known = torch::jit::constant_as<bool>(node->namedInput("training"));
      if (known && !*known) return;
    }
    for (const char *name : {"running_mean", "running_var"}) {
      auto *running = node->namedInput(name);
      for (auto *tensor : own_) {
        if (aliases.mayAlias(tensor, running)) tell(tensor, std::string("keeps statistics in it, by ") + node->kind().toQualString());
      }
    }
  }

  void kept(AliasDb &aliases, Node *node) {
    bool stores = node->kind() == prim::SetAttr;
    for (auto *container : containers_) {
      stores = stores || (node->kind() != prim::GetAttr && aliases.writesToAlias(node, {container}));
    }
    if (!stores) return;
    for (size_t at = 1; at < node->inputs().size(); ++at) {
      auto *value = node->inputs().at(at);
      for (auto *tensor : own_) {
        if (aliases.mayContainAlias(value, tensor)) tell(tensor, "keeps it under another name");
      }
      for (auto *container : containers_) {
        if (value != container && aliases.mayContainAlias(value, container)) {
          tell(container, "keeps a tensor of it under another name");
        }
      }
    }
  }

  // Path of an attribute from the module, in the naming of its parameters. Empty if it is unknown.
  std::string attribute(Node *node) {
    auto owner = path(node->inputs().at(0));
    if (!owner) return "";
    auto name = node->s(c10::attr::name);
    return owner->empty() ? name : *owner + "." + name;
  }

  std::optional<std::string> path(Value *value) {
    if (value == self_) return "";
    if (value->node()->kind() != prim::GetAttr) return std::nullopt;
    auto found = attribute(value->node());
    if (found.empty()) return std::nullopt;
    return found;
  }

  // Finds the operation that writes to a tensor, tracing it through views, branches, loops and
  // containers.
  Node *writer(Value *tensor) {
    for (auto *node : nodes_) {
      auto *schema = node->maybeSchema();
      if (!schema) continue;
      for (size_t at = 0; at < node->inputs().size() && at < schema->arguments().size(); ++at) {
        auto *alias = schema->arguments()[at].alias_info();
        if (!alias || !alias->isWrite()) continue;
        std::set<Value *> seen;
        if (comes_from(node->inputs()[at], tensor, seen)) return node;
      }
    }
    return nullptr;
  }

  // Returns true if a value may be the tensor, or contain it, as far as it can be traced back.
  // Attributes of the same path are the same tensor.
  bool comes_from(Value *value, Value *tensor, std::set<Value *> &seen) {
    if (!is_tensor(value->type()) && !is_module(value->type()) && !may_hold_tensors(value->type())) return false;
    if (!seen.insert(value).second) return false;
    auto *node = value->node();
    auto any = [&](at::ArrayRef<Value *> values) {
      for (auto *each : values) {
        if (comes_from(each, tensor, seen)) return true;
      }
      return false;
    };
    // Values that are added to a container later.
    for (const auto &use : value->uses()) {
      if (is_tensor(value->type()) || use.offset != 0 || !writes_first(use.user)) continue;
      if (any(use.user->inputs().slice(1))) return true;
    }
    if (value == tensor) return true;
    if (node->kind() == prim::GetAttr) {
      auto path = attribute(node);
      return path.empty() || path == attribute(tensor->node());
    }
    if (node->kind() == prim::Param) {
      auto *owner = node->owningBlock()->owningNode();
      // An input of the method is a copy. An input of a loop is its initial value, or a result of
      // the previous iteration.
      if (!owner) return false;
      return any(owner->inputs()) || any(node->owningBlock()->outputs());
    }
    if (!node->blocks().empty()) {
      for (auto *block : node->blocks()) {
        if (any(block->outputs())) return true;
      }
      return any(node->inputs());
    }
    if (auto *schema = node->maybeSchema()) {
      for (size_t at = 0; at < node->outputs().size() && at < schema->returns().size(); ++at) {
        if (node->outputs()[at] != value) continue;
        auto *alias = schema->returns()[at].alias_info();
        // The signature declares a new tensor. Containers get their tensors from somewhere else.
        if (!alias && is_tensor(value->type())) return false;
      }
    }
    return any(node->inputs());
  }

  static bool writes_first(Node *node) {
    auto *schema = node->maybeSchema();
    if (!schema || schema->arguments().empty()) return false;
    auto *alias = schema->arguments()[0].alias_info();
    return alias && alias->isWrite();
  }

  void tell(Value *tensor, const std::string &what) {
    told_(context_, attribute(tensor->node()).c_str(), (name_ + " " + what).c_str());
  }

  void *context_;
  Told told_;
  std::string name_;
  Value *self_ = nullptr;
  // Attributes of the module and of its submodules: tensors, and values that may contain some.
  std::vector<Value *> own_, containers_;
  std::vector<Value *> written_;
  std::vector<Node *> nodes_;
};

}  // namespace
