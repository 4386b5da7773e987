// SPDX-License-Identifier: Apache-2.0
// The JSON library is all templates. json_templates.cc instantiates those that nearly every source of conf and control
// needs, once; every other source only refers to them. That takes a quarter off the time to build those rooms.
#ifndef TIDEGATE_CORE_PCH_JSON_TEMPLATES_H_
#define TIDEGATE_CORE_PCH_JSON_TEMPLATES_H_

#include <nlohmann/json.hpp>

extern template class nlohmann::basic_json<>;
extern template class nlohmann::detail::iter_impl<const nlohmann::json>;
extern template class nlohmann::detail::serializer<nlohmann::json>;
extern template class nlohmann::detail::lexer<nlohmann::json,
                                              nlohmann::detail::iterator_input_adapter<std::string::const_iterator>>;
extern template class nlohmann::detail::parser<nlohmann::json,
                                               nlohmann::detail::iterator_input_adapter<std::string::const_iterator>>;
extern template class nlohmann::detail::lexer<nlohmann::json, nlohmann::detail::iterator_input_adapter<const char*>>;
extern template class nlohmann::detail::parser<nlohmann::json, nlohmann::detail::iterator_input_adapter<const char*>>;

#endif  // TIDEGATE_CORE_PCH_JSON_TEMPLATES_H_
