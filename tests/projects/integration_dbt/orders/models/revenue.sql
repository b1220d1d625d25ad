select customers.name, sum(orders.cents) as cents
from {{ ref('stg_orders') }} as orders
join {{ ref('stg_customers') }} as customers on customers.id = orders.customer
group by customers.name
