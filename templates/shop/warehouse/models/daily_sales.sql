select
    ordered_on,
    count(*) as orders,
    sum(quantity) as pieces
from {{ ref('orders') }}
group by ordered_on
