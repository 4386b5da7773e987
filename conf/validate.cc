#include "conf/validate.h"

namespace tidegate {

void validate(const DocumentNode&, Model& model, FaultList&) {
  for (Route& route : model.routes) {
    if (!route.redirect.empty() && route.status == 0) route.status = 302;
  }
}

}  // namespace tidegate
