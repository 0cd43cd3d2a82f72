#include "fixtures.hpp"
#include "testing.hpp"

int main(int count, char** arguments) {
    fixtures::add_pixel_engine();
    return testing::run(count, arguments);
}
